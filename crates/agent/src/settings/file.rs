//! One of the files: an object of names, for its owner alone, replaced whole.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::blocking::blocking;
use crate::problem::{Code, Problem};

/// Bytes of a file that is read.
const LARGEST: u64 = 4 * 1024 * 1024;

fn place(directory: &Path) -> PathBuf {
    directory.join(".sandbox-agent/config")
}

/// What is in it; nothing if it is not there.
pub(super) async fn read(
    directory: PathBuf,
    name: &'static str,
) -> Result<Map<String, Value>, Problem> {
    let path = place(&directory).join(name);
    let shown = path.display().to_string();
    let read = blocking(move || {
        let about = fs::metadata(&path)?;
        if !about.is_file() || about.len() > LARGEST {
            return Err(io::Error::other("it is no file, or too large"));
        }
        fs::read(&path)
    });
    match read.await {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map_err(|error| Problem::invalid(format!("invalid config file {shown}: {error}"))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Map::new()),
        Err(error) => Err(Problem::invalid(format!("invalid config file {shown}: {error}"))),
    }
}

/// Replaces it in one step.
pub(super) async fn write(
    directory: PathBuf,
    name: &'static str,
    all: Map<String, Value>,
) -> Result<(), Problem> {
    let shown = directory.display().to_string();
    let written = blocking(move || {
        let place = place(&directory);
        DirBuilder::new().recursive(true).mode(0o700).create(&place)?;
        let fresh = place.join(format!("{name}.partial"));
        // One that a crash left may be anybody's.
        drop(fs::remove_file(&fresh));
        let mut options = File::options();
        let mut file = options.write(true).create_new(true).mode(0o600).open(&fresh)?;
        let mut text = serde_json::to_vec_pretty(&all)?;
        text.push(b'\n');
        let written = file.write_all(&text).and_then(|()| fs::rename(&fresh, place.join(name)));
        if written.is_err() {
            drop(fs::remove_file(&fresh));
        }
        written
    });
    written.await.map_err(|error| {
        let text = format!("directory {shown}: {error}");
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Problem::new(Code::StreamError, text).with("errno", "ENOSPC")
            }
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Problem::new(Code::PermissionDenied, text)
            }
            _ => Problem::invalid(text),
        }
    })
}
