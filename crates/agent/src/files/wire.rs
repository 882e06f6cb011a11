//! Files over the wire.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::wire::{flag, null_is_default};

/// A path. Absolute, or from the server's home on.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct PathQuery {
    pub(super) path: String,
}

/// A path that may be left out: then it is the server's home.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct PlaceQuery {
    #[serde(default)]
    pub(super) path: String,
}

/// What to list.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct EntriesQuery {
    /// Default: the server's home.
    #[serde(default)]
    pub(super) path: String,
    /// So many at most, in the order of their names. Without it: all, in no order.
    pub(super) limit: Option<u32>,
    /// Only names after this one.
    pub(super) after: Option<String>,
}

/// What to delete.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct DeleteQuery {
    pub(super) path: String,
    /// Also what is in a directory.
    #[serde(default, deserialize_with = "flag")]
    #[param(value_type = Option<bool>)]
    pub(super) recursive: bool,
}

/// What to watch.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct WatchQuery {
    /// Default: the server's home.
    #[serde(default)]
    pub(super) path: String,
    /// Also in the directories below it.
    #[serde(default, deserialize_with = "flag")]
    #[param(value_type = Option<bool>)]
    pub(super) recursive: bool,
}

/// What to look for.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct SearchQuery {
    /// Where. Default: the server's home.
    #[serde(default)]
    pub(super) path: String,
    /// Part of a name, in any case; or a pattern for the whole name (`*.rs`, `test_?.py`).
    #[serde(default)]
    pub(super) q: String,
    /// Only files with this text in them; each match is told with its line.
    pub(super) content: Option<String>,
    /// Default 1000, at most 10000.
    pub(super) limit: Option<u32>,
}

/// Something in a directory.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FsEntry {
    pub(super) name: String,
    /// Absolute.
    pub(super) path: String,
    /// `file` or `directory`; whatever is no directory counts as a file.
    pub(super) entry_type: &'static str,
    /// Bytes.
    pub(super) size: u64,
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) modified: Option<String>,
    /// Where a symbolic link points.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) target: Option<String>,
    /// Permissions, in octal.
    pub(super) mode: String,
}

/// What lies at a path. Links are followed.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FsStat {
    /// Absolute.
    pub(super) path: String,
    /// `file` or `directory`
    pub(super) entry_type: &'static str,
    /// Bytes.
    pub(super) size: u64,
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) modified: Option<String>,
    /// Permissions, in octal.
    pub(super) mode: String,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// A path that was acted on.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FsPath {
    /// Absolute.
    pub(super) path: String,
}

/// What was written.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FsWritten {
    /// Absolute.
    pub(super) path: String,
    pub(super) bytes_written: u64,
}

/// A directory to make.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(crate) struct MkdirRequest {
    pub(super) path: Option<String>,
}

/// What to move.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct MoveRequest {
    pub(super) from: String,
    pub(super) to: String,
    /// Replaces what is at `to`. Default false.
    #[serde(default, deserialize_with = "null_is_default")]
    #[schema(value_type = Option<bool>)]
    pub(super) overwrite: bool,
}

/// What was moved: both paths, absolute.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FsMoved {
    pub(super) from: String,
    pub(super) to: String,
}

/// Files to write.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct BatchRequest {
    pub(super) files: Vec<BatchFile>,
}

/// A file to write.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct BatchFile {
    pub(super) path: String,
    pub(super) content: String,
    /// `utf8` (default) or `base64`
    pub(super) encoding: Option<String>,
}

/// What was written, the first 1024 paths of it.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct FsUploaded {
    pub(super) paths: Vec<String>,
    /// Whether there are more than are listed.
    pub(super) truncated: bool,
    /// How many there are.
    pub(super) uploaded: u64,
}

/// Paths that an answer lists.
const LISTED: usize = 1024;

impl FsUploaded {
    pub(super) fn add(&mut self, path: String) {
        self.uploaded += 1;
        if self.paths.len() < LISTED {
            self.paths.push(path);
        } else {
            self.truncated = true;
        }
    }
}

/// Something that was found.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SearchMatch {
    /// Absolute.
    pub(super) path: String,
    /// `file` or `directory`
    pub(super) entry_type: &'static str,
    /// From 1, of a text that was found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) line: Option<u64>,
    /// That line, shortened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) text: Option<String>,
}

/// What was found.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SearchResult {
    pub(super) matches: Vec<SearchMatch>,
    /// Whether there may be more.
    pub(super) truncated: bool,
}
