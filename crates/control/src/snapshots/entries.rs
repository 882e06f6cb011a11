//! Entries of manifests, as shown.

use std::io::{self, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use snapshot::{Entry, Kind, ManifestError, Stratum, View};

use super::wire::ManifestEntry;

const ROOTS: [&str; 2] = ["workspace", "output"];

/// As shown; `None` for the two roots themselves, and for what is gone.
pub(super) fn shown(entry: &Entry) -> Option<ManifestEntry> {
    let (root, path) = ROOTS.iter().find_map(|root| {
        let below = entry.path.strip_prefix(root.as_bytes())?.strip_prefix(b"/")?;
        Some((*root, below))
    })?;
    let hash = |hash: &[u8; 32]| hash.iter().map(|byte| format!("{byte:02x}")).collect();
    let (kind, hash, size, target) = match &entry.kind {
        Kind::File { size, hash: bytes, .. } => ("file", hash(bytes), *size, None),
        Kind::Symlink { target } => {
            ("symlink", String::new(), 0, Some(String::from_utf8_lossy(target).into_owned()))
        }
        Kind::Directory { .. } => ("directory", String::new(), 0, None),
        Kind::Removed => return None,
    };
    let is_text = std::str::from_utf8(path).is_ok();
    Some(ManifestEntry {
        path: String::from_utf8_lossy(path).into_owned(),
        mode: entry.mode,
        hash,
        size,
        kind,
        root,
        target,
        path_base64: (!is_text).then(|| STANDARD.encode(path)),
    })
}

/// Why a manifest was not written out.
#[derive(Debug, thiserror::Error)]
pub(super) enum WriteError {
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    #[error("a manifest could not be written out")]
    Write(#[from] io::Error),
    #[error("an entry could not be written out")]
    Json(#[from] serde_json::Error),
}

/// Writes a manifest as JSON: the workspace's entries, then the output's, each in order. One is held at a time.
pub(super) fn write_manifest(strata: &[Stratum], to: &mut dyn Write) -> Result<(), WriteError> {
    to.write_all(b"{\"kind\":\"incremental\"")?;
    for (root, field) in ROOTS.into_iter().zip(["entries", "output"]) {
        write!(to, ",\"{field}\":[")?;
        let mut first = true;
        let mut view = View::open(strata)?;
        // A directory is shown if the next entry is not in it.
        let mut waiting: Option<Entry> = None;
        loop {
            let next = view.next()?.map(|seen| seen.entry);
            if let Some(directory) = waiting.take() {
                let filled = next.as_ref().is_some_and(|next| is_in(next, &directory));
                if !filled {
                    write_entry(&directory, root, &mut first, to)?;
                }
            }
            match next {
                None => break,
                Some(entry) if matches!(entry.kind, Kind::Directory { .. }) => {
                    waiting = Some(entry);
                }
                Some(entry) => write_entry(&entry, root, &mut first, to)?,
            }
        }
        to.write_all(b"]")?;
    }
    to.write_all(b"}")?;
    Ok(())
}

fn is_in(entry: &Entry, directory: &Entry) -> bool {
    let rest = entry.path.strip_prefix(directory.path.as_slice());
    rest.is_some_and(|rest| rest.first() == Some(&b'/'))
}

fn write_entry(
    entry: &Entry,
    root: &str,
    first: &mut bool,
    to: &mut dyn Write,
) -> Result<(), WriteError> {
    let Some(shown) = shown(entry).filter(|shown| shown.root == root) else { return Ok(()) };
    if !std::mem::take(first) {
        to.write_all(b",")?;
    }
    Ok(serde_json::to_writer(to, &shown)?)
}
