//! Snapshots over the wire.

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

/// A snapshot.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SnapshotView {
    pub(super) id: String,
    pub(super) tenant_id: String,
    pub(super) workspace_id: Option<String>,
    pub(super) name: Option<String>,
    pub(super) created_at: String,
    /// The topmost of its trees, on the server's disk. For admins; else empty.
    pub(super) path: String,
    /// Of all files that are seen.
    pub(super) size_bytes: u64,
    pub(super) files: u64,
    /// What is not kept: sockets, FIFOs, devices, set-id bits; and what a server without root cannot read
    /// because its owner closed it (`closed` of them): that is kept, and not told of.
    /// `{count, closed, first: [{path, reason}]}`.
    pub(super) left_out: Value,
    /// How long a running command stood still. In the answer to taking it only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) freeze_ms: Option<f64>,
}

/// A page of snapshots, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SnapshotList {
    pub(super) rows: Vec<SnapshotView>,
    /// On all pages.
    pub(super) total: u64,
    pub(super) limit: u32,
    pub(super) offset: u64,
}

/// What is in a snapshot.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SnapshotManifest {
    /// `incremental`
    pub(super) kind: String,
    /// Files, symbolic links, and directories with nothing in them, of `/workspace`.
    pub(super) entries: Vec<ManifestEntry>,
    /// The same of `/output`.
    pub(super) output: Vec<ManifestEntry>,
}

/// A file, a link or an empty directory.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct ManifestEntry {
    /// From `root`. Bytes that are not UTF-8 are replaced; `path_base64` has them.
    pub(super) path: String,
    /// As in `st_mode`.
    pub(super) mode: u32,
    /// BLAKE3-256 of the content, in hex; empty for what has none.
    pub(super) hash: String,
    pub(super) size: u64,
    /// `file`, `symlink` or `directory`
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    /// `workspace` or `output`
    pub(super) root: &'static str,
    /// Of a link.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) target: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) path_base64: Option<String>,
}

/// What differs between two snapshots.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SnapshotDiff {
    pub(super) against: String,
    pub(super) added: Vec<ManifestEntry>,
    pub(super) changed: Vec<ChangedEntry>,
    pub(super) removed: Vec<ManifestEntry>,
    pub(super) totals: DiffTotals,
    /// Whether there are more than are listed.
    pub(super) truncated: bool,
}

/// Something that is in both, and differs.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ChangedEntry {
    pub(super) before: ManifestEntry,
    pub(super) after: ManifestEntry,
}

/// How much differs.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DiffTotals {
    pub(super) added: u64,
    pub(super) changed: u64,
    pub(super) removed: u64,
}

/// Whether a snapshot is what it was.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Verified {
    /// False if a content is not what its hash says, or is not there.
    pub(super) intact: bool,
    /// What is wrong, if something is.
    pub(super) error: Option<String>,
}
