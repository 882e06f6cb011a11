//! Manifests: what a layer changes over those below, entry by entry, in order.
//!
//! A file: [`MAGIC`], then each entry as its length (4 bytes, little-endian) and its postcard encoding.
//! Its BLAKE3 is kept elsewhere, and compared when the file has been read to its end; each entry is
//! checked as it is read, so that a forged one is never acted on.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::order;

const MAGIC: &[u8; 8] = b"ajmani1\n";

/// Longest entry: a path of 4 KiB, a link's target, and the attributes of a file.
const LONGEST_ENTRY: usize = 256 * 1024;

/// BLAKE3 of a manifest's file.
pub type ManifestHash = [u8; 32];

/// Something that a layer adds, changes or removes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// From the top of the tree: `workspace/…` or `output/…`. Names are bytes.
    pub path: Vec<u8>,
    /// As in `st_mode`.
    pub mode: u32,
    /// Nanoseconds since 1970.
    pub modified: i64,
    pub kind: Kind,
    /// Names and values of `user.` attributes.
    pub attributes: Vec<(Vec<u8>, Vec<u8>)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    File {
        size: u64,
        /// BLAKE3-256 of the content.
        hash: [u8; 32],
        /// Names of one file in one layer have the same number.
        link: Option<u64>,
    },
    /// An opaque one hides what lower layers have there.
    Directory {
        opaque: bool,
    },
    Symlink {
        target: Vec<u8>,
    },
    /// What lower layers have there is gone.
    Removed,
}

/// Why a manifest could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error("a manifest could not be read")]
    Read(#[from] io::Error),
    #[error("a manifest is not one: {0}")]
    Malformed(&'static str),
    #[error("a manifest was changed after it was written")]
    Changed,
}

/// Writes entries, which must come in order.
pub(crate) struct Writer {
    file: BufWriter<File>,
    hasher: blake3::Hasher,
}

impl Writer {
    /// Writes to a new file beside `path`, which [`Writer::finish`] puts in its place.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        let fresh = path.with_extension("new");
        let file =
            File::options().create(true).write(true).truncate(true).mode(0o600).open(fresh)?;
        let mut writer = Self { file: BufWriter::new(file), hasher: blake3::Hasher::new() };
        writer.put(MAGIC)?;
        Ok(writer)
    }

    pub(crate) fn add(&mut self, entry: &Entry) -> io::Result<()> {
        let bytes = postcard::to_allocvec(entry).map_err(io::Error::other)?;
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        self.put(&length.to_le_bytes())?;
        self.put(&bytes)
    }

    pub(crate) fn finish(self, path: &Path) -> io::Result<ManifestHash> {
        let Self { mut file, hasher } = self;
        file.flush()?;
        std::fs::rename(path.with_extension("new"), path)?;
        Ok(*hasher.finalize().as_bytes())
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.file.write_all(bytes)
    }
}

/// Reads entries in order.
pub(crate) struct Reader {
    file: BufReader<File>,
    hasher: blake3::Hasher,
    expected: ManifestHash,
    last: Vec<u8>,
}

impl Reader {
    pub(crate) fn open(path: &Path, expected: ManifestHash) -> Result<Self, ManifestError> {
        let file = BufReader::with_capacity(64 * 1024, File::open(path)?);
        let mut reader = Self { file, hasher: blake3::Hasher::new(), expected, last: Vec::new() };
        let mut magic = [0; MAGIC.len()];
        reader.take(&mut magic)?;
        if &magic != MAGIC {
            return Err(ManifestError::Malformed("it begins with something else"));
        }
        Ok(reader)
    }

    pub(crate) fn next(&mut self) -> Result<Option<Entry>, ManifestError> {
        let mut length = [0; 4];
        if self.file.fill_up(&mut length)? == 0 {
            return if *self.hasher.finalize().as_bytes() == self.expected {
                Ok(None)
            } else {
                Err(ManifestError::Changed)
            };
        }
        self.hasher.update(&length);
        let length = u32::from_le_bytes(length) as usize;
        if length > LONGEST_ENTRY {
            return Err(ManifestError::Malformed("an entry is too long"));
        }
        let mut bytes = vec![0; length];
        self.take(&mut bytes)?;
        let entry: Entry = postcard::from_bytes(&bytes)
            .map_err(|_| ManifestError::Malformed("an entry cannot be decoded"))?;
        check(&entry)?;
        if !self.last.is_empty() && order::compare(&self.last, &entry.path).is_ge() {
            return Err(ManifestError::Malformed("entries are out of order"));
        }
        self.last.clone_from(&entry.path);
        Ok(Some(entry))
    }

    fn take(&mut self, bytes: &mut [u8]) -> Result<(), ManifestError> {
        self.file.read_exact(bytes)?;
        self.hasher.update(bytes);
        Ok(())
    }
}

trait FillUp {
    /// Reads as much as fits, or nothing at the end of the file.
    fn fill_up(&mut self, bytes: &mut [u8]) -> io::Result<usize>;
}

impl FillUp for BufReader<File> {
    fn fill_up(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.read(bytes)?;
        if read > 0 {
            self.read_exact(&mut bytes[read..])?;
        }
        Ok(read)
    }
}

/// Nothing that is not a plain relative path, and no bit that a layer does not keep.
fn check(entry: &Entry) -> Result<(), ManifestError> {
    let normal =
        |name: &[u8]| !name.is_empty() && name != b"." && name != b".." && !name.contains(&0);
    if !entry.path.split(|byte| *byte == b'/').all(normal) {
        return Err(ManifestError::Malformed("a path is not one below the tree"));
    }
    if entry.mode & 0o6000 != 0 {
        return Err(ManifestError::Malformed("a mode has a set-id bit"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str) -> Entry {
        let kind = Kind::File { size: 1, hash: [7; 32], link: None };
        Entry { path: path.into(), mode: 0o100_644, modified: 5, kind, attributes: Vec::new() }
    }

    fn written(entries: &[Entry]) -> (tempfile::TempDir, std::path::PathBuf, ManifestHash) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("manifest");
        let mut writer = Writer::create(&path).unwrap();
        for entry in entries {
            writer.add(entry).unwrap();
        }
        let hash = writer.finish(&path).unwrap();
        (directory, path, hash)
    }

    fn read(path: &Path, hash: ManifestHash) -> Result<Vec<Entry>, ManifestError> {
        let mut reader = Reader::open(path, hash)?;
        let mut entries = Vec::new();
        while let Some(entry) = reader.next()? {
            entries.push(entry);
        }
        Ok(entries)
    }

    #[test]
    fn what_was_written_is_read() {
        let entries = [entry("a"), entry("a/b"), entry("a-c")];
        let (_directory, path, hash) = written(&entries);
        assert_eq!(read(&path, hash).unwrap(), entries);
    }

    #[test]
    fn forged_entries_are_refused() {
        let mut setuid = entry("a");
        setuid.mode |= 0o4000;
        for forged in [
            entry("/etc/passwd"),
            entry("../a"),
            entry("a/../../b"),
            entry(""),
            entry("a//b"),
            setuid,
        ] {
            let (_directory, path, hash) = written(std::slice::from_ref(&forged));
            assert!(matches!(read(&path, hash), Err(ManifestError::Malformed(_))), "{forged:?}");
        }
        let (_directory, path, hash) = written(&[entry("b"), entry("a")]);
        assert!(matches!(read(&path, hash), Err(ManifestError::Malformed(_))));
        let (_directory, path, hash) = written(&[entry("a"), entry("a")]);
        assert!(matches!(read(&path, hash), Err(ManifestError::Malformed(_))), "a name twice");
    }

    #[test]
    fn a_manifest_that_was_changed_or_cut_off_is_refused() {
        let (_directory, path, hash) = written(&[entry("a"), entry("b")]);
        let whole = std::fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            assert!(read(&path, hash).is_err(), "{cut}");
        }
        let mut changed = whole.clone();
        // The hash of the first entry's content, which stays well-formed.
        let at = changed.windows(8).position(|bytes| bytes == [7; 8]).unwrap();
        changed[at] = 8;
        std::fs::write(&path, &changed).unwrap();
        assert!(matches!(read(&path, hash), Err(ManifestError::Changed)));
    }
}
