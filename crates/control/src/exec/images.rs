//! Images: root file systems of the state that can stand in place of the server's system directories.
//!
//! Each is a directory with `root`, made ready for jails, and `image.json`, written last.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::flavors;

/// In an image's directory.
const ROOT: &str = "root";
const ABOUT: &str = "image.json";

/// Why an image cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error("unknown image: {0:?}")]
    Unknown(String),
    #[error("the images could not be read")]
    Read(#[source] io::Error),
    #[error("what is known of an image could not be read")]
    About(#[source] serde_json::Error),
}

/// What is known of an image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// Of its manifest, as `sha256:…`.
    pub digest: String,
    /// Its `PATH`, if it says one.
    pub path: Option<String>,
}

/// An image that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    pub name: String,
    root: PathBuf,
    pub about: About,
}

impl Image {
    /// Its `PATH`, if it says one.
    pub(crate) fn search_path(&self) -> Option<&str> {
        self.about.path.as_deref()
    }

    pub(crate) fn into_root(self) -> PathBuf {
        self.root
    }
}

/// All images of a directory, by name; none if the directory is not there. What is no image is skipped.
pub fn list(directory: &Path) -> Result<Vec<Image>, ImageError> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(ImageError::Read(error)),
    };
    let mut images = Vec::new();
    for entry in entries {
        let name = entry.map_err(ImageError::Read)?.file_name();
        if let Some(name) = name.to_str().filter(|name| flavors::is_name(name)) {
            match find(directory, name) {
                Ok(image) => images.push(image),
                Err(error) => tracing::warn!(name, %error, "not an image: skipped"),
            }
        }
    }
    images.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(images)
}

/// One image.
pub fn find(directory: &Path, name: &str) -> Result<Image, ImageError> {
    let unknown = || ImageError::Unknown(name.chars().take(64).collect());
    if !flavors::is_name(name) {
        return Err(unknown());
    }
    let own = directory.join(name);
    let text = match fs::read(own.join(ABOUT)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(unknown()),
        Err(error) => return Err(ImageError::Read(error)),
    };
    let about = serde_json::from_slice(&text).map_err(ImageError::About)?;
    let root = own.join(ROOT).canonicalize().map_err(ImageError::Read)?;
    Ok(Image { name: name.to_owned(), root, about })
}

/// Where an image that is being made has its files.
pub fn root_of(own: &Path) -> PathBuf {
    own.join(ROOT)
}

/// Says that an image is whole.
pub fn finish(own: &Path, about: &About) -> io::Result<()> {
    fs::write(own.join(ABOUT), serde_json::to_vec(about)?)
}
