//! Several small files in one request.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::error::FileError;
use super::root::Root;
use super::wire::{BatchFile, BatchRequest, FsUploaded};
use super::write::{Content, Draft};

/// Writes all files. All are looked at before the first is written.
pub(super) fn write(root: &Root, request: BatchRequest) -> Result<FsUploaded, FileError> {
    let mut checked = Vec::with_capacity(request.files.len());
    for (index, file) in request.files.into_iter().enumerate() {
        checked.push((root.place(&file.path)?, content(index, file)?));
    }
    let mut uploaded = FsUploaded::default();
    for (place, content) in checked {
        let mut draft = Draft::begin(root, &place, Content::Whole)?;
        draft.write(&content)?;
        draft.finish()?;
        uploaded.add(place.path);
    }
    Ok(uploaded)
}

fn content(index: usize, file: BatchFile) -> Result<Vec<u8>, FileError> {
    match file.encoding.as_deref() {
        None | Some("utf8" | "utf-8" | "text") => Ok(file.content.into_bytes()),
        Some("base64") => STANDARD.decode(file.content).map_err(|error| {
            FileError::Path(format!("files[{index}].content is no base64: {error}"))
        }),
        Some(other) => Err(FileError::Path(format!(
            "files[{index}].encoding must be one of: utf8, base64; not {other}"
        ))),
    }
}
