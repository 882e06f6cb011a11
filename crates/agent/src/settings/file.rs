//! One of the files: an object of names, for its owner alone, replaced whole, and below the root like any other.

use std::io::Read as _;
use std::path::Path;

use serde_json::{Map, Value};

use crate::blocking::blocking;
use crate::files::{FileError, Root};
use crate::problem::Problem;

/// Bytes of a file that is read.
const LARGEST: u64 = 4 * 1024 * 1024;

fn path(directory: &Path, name: &str) -> String {
    directory.join(".sandbox-agent/config").join(name).display().to_string()
}

/// What is in it; nothing if it is not there.
pub(super) async fn read(
    root: &Root,
    directory: &Path,
    name: &'static str,
) -> Result<Map<String, Value>, Problem> {
    let (root, path) = (root.clone(), path(directory, name));
    let shown = path.clone();
    let read = blocking(move || {
        let mut text = Vec::new();
        let file = match root.read(&path) {
            Ok(file) => file,
            Err(FileError::NotFound(_)) => return Ok(None),
            Err(error) => return Err(Problem::from(error)),
        };
        let invalid = |error: std::io::Error| Problem::invalid(format!("{path}: {error}"));
        file.take(LARGEST).read_to_end(&mut text).map_err(invalid)?;
        Ok(Some(text))
    });
    match read.await? {
        Some(text) => serde_json::from_slice(&text)
            .map_err(|error| Problem::invalid(format!("invalid config file {shown}: {error}"))),
        None => Ok(Map::new()),
    }
}

/// Replaces it in one step.
pub(super) async fn write(
    root: &Root,
    directory: &Path,
    name: &'static str,
    all: Map<String, Value>,
) -> Result<(), Problem> {
    let (root, path) = (root.clone(), path(directory, name));
    let mut text = serde_json::to_vec_pretty(&all).unwrap_or_default();
    text.push(b'\n');
    Ok(blocking(move || root.write_private(&path, &text)).await?)
}
