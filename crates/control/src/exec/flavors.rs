//! Flavors: directories of the state that can be put into a jail, read-only.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const LONGEST_NAME: usize = 32;

/// Why a flavor cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum FlavorError {
    #[error("unknown flavor: {0:?}")]
    Unknown(String),
    #[error("the flavors could not be read")]
    Read(#[source] io::Error),
}

/// All flavors of a directory, by name; none if the directory is not there. Read anew at each call,
/// so that one can be added while the server runs.
pub fn list(directory: &Path) -> Result<Vec<(String, PathBuf)>, FlavorError> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(FlavorError::Read(error)),
    };
    let mut flavors = Vec::new();
    for entry in entries {
        let path = entry.map_err(FlavorError::Read)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with('.') {
            // One in the making.
            continue;
        }
        // A link to a directory is a flavor, too: the operator made it.
        match path.canonicalize() {
            Ok(real) if real.is_dir() && is_name(name) => flavors.push((name.to_owned(), real)),
            _ => tracing::warn!(path = %path.display(), "not a flavor: skipped"),
        }
    }
    flavors.sort();
    Ok(flavors)
}

/// The directories of the named flavors, in the order named.
pub fn find(directory: &Path, names: &[String]) -> Result<Vec<(String, PathBuf)>, FlavorError> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let known = list(directory)?;
    let find = |name: &String| {
        let found = known.iter().find(|(known, _)| known == name).cloned();
        found.ok_or_else(|| FlavorError::Unknown(name.clone()))
    };
    names.iter().map(find).collect()
}

/// The search path inside a jail: each flavor's `bin/` first, in order; then an image's own, or the usual.
pub(crate) fn search_path(flavors: &[(String, PathBuf)], image: Option<&str>) -> String {
    let bins = flavors.iter().filter(|(_, path)| path.join("bin").is_dir());
    bins.map(|(name, _)| format!("/opt/flavors/{name}/bin"))
        .chain([image.unwrap_or("/usr/local/bin:/usr/bin:/bin").to_owned()])
        .collect::<Vec<_>>()
        .join(":")
}

/// Whether something may be the name of a flavor.
pub fn is_name(name: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    (1..=LONGEST_NAME).contains(&name.len())
        && name.bytes().next().is_some_and(alphanumeric)
        && name.bytes().all(|b| alphanumeric(b) || b == b'_' || b == b'-')
}
