//! From a sealed tree to its manifest.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::{AtFlags, FileType, Mode, Stat, chmodat, unlinkat};

use crate::manifest::{Entry, Kind, ManifestHash, Writer};
use crate::pool::Pool;
use crate::tree::{self, Found};

/// Entries that are hashed together, and so held at once.
const BATCH: usize = 2048;

/// With fewer files than this, starting threads costs more than they save.
const WORTH_THREADS: usize = 32;

/// From this size on, one file is hashed by all processors.
const LARGE: u64 = 1 << 20;
const CHUNK: usize = 4 << 20;

/// Attributes of one file together; more do not fit into an entry.
const MOST_ATTRIBUTES: usize = 128 * 1024;

/// Longer paths than any program can use at once are not told of.
const LONGEST_PATH: usize = 16 * 1024;

/// From this size on, a file must have a part of its blocks for its size to be believed.
const BELIEVED: i64 = 1 << 30;
const FULL_PART: i64 = 64;

/// Whether hashing a file would take far longer than writing it did.
fn too_sparse(status: &Stat) -> bool {
    FileType::from_raw_mode(status.st_mode) == FileType::RegularFile
        && status.st_size > BELIEVED
        && status.st_blocks.saturating_mul(512) < status.st_size / FULL_PART
}

/// What a tree was found to be.
#[derive(Debug)]
pub struct Indexed {
    pub manifest: ManifestHash,
    /// Of the tree's own files.
    pub bytes: u64,
    pub left_out: LeftOut,
}

/// What is not kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Path and reason, of the first ones.
    pub first: Vec<(Vec<u8>, &'static str)>,
    /// All together.
    pub count: u64,
    /// Those of them that are in the tree all the same, and only cannot be told of.
    pub untold: u64,
}

impl LeftOut {
    const SHOWN: usize = 64;

    pub(crate) fn add(&mut self, path: &[u8], why: &'static str) {
        self.count += 1;
        if self.first.len() < Self::SHOWN {
            self.first.push((path.to_vec(), why));
        }
    }
}

impl LeftOut {
    fn add_untold(&mut self, path: &[u8], why: &'static str) {
        self.untold += 1;
        self.add(path, why);
    }
}

/// Why something is not kept; `None` if it is.
pub(crate) fn refused(mode: u32) -> Option<&'static str> {
    match FileType::from_raw_mode(mode) {
        FileType::Fifo => Some("a FIFO"),
        FileType::Socket => Some("a socket"),
        FileType::BlockDevice | FileType::CharacterDevice => Some("a device"),
        _ => None,
    }
}

/// Writes the manifest of a sealed tree, and puts its contents into the pool. What is not kept is
/// removed from it.
pub fn index(files: &Path, manifest: &Path, pool: &Pool) -> io::Result<Indexed> {
    let top = tree::open_top(files)?;
    let mut writer = Writer::create(manifest)?;
    let (mut batch, mut bytes, mut left_out) = (Vec::new(), 0, LeftOut::default());
    tree::walk(&top, &mut |found| {
        if found.path.len() > LONGEST_PATH {
            left_out.add_untold(&found.path[..64], "its path is too long to be told of");
            return Ok(());
        }
        if too_sparse(&found.status) {
            left_out.add_untold(
                found.path,
                "large and almost all holes: hashing it would take for ever",
            );
            batch.push(hidden(found));
            return Ok(());
        }
        let Some(entry) = entry(found, &mut left_out)? else { return Ok(()) };
        batch.push(entry);
        if batch.len() == BATCH {
            bytes += flush(&top, &mut batch, pool, &mut writer, &mut left_out)?;
        }
        Ok(())
    })?;
    bytes += flush(&top, &mut batch, pool, &mut writer, &mut left_out)?;
    Ok(Indexed { manifest: writer.finish(manifest)?, bytes, left_out })
}

/// In the place of what cannot be told of: not what is below it, either.
fn hidden(found: &Found<'_>) -> Entry {
    Entry {
        path: found.path.to_vec(),
        mode: 0,
        modified: 0,
        kind: Kind::Removed,
        attributes: Vec::new(),
    }
}

fn entry(found: &Found<'_>, left_out: &mut LeftOut) -> io::Result<Option<Entry>> {
    let status = &found.status;
    let kind = match FileType::from_raw_mode(status.st_mode) {
        FileType::RegularFile => Kind::File {
            size: status.st_size.cast_unsigned(),
            hash: [0; 32],
            link: (status.st_nlink > 1).then_some(status.st_ino),
        },
        FileType::Directory => {
            if let Some(why) = found.unread {
                left_out.add_untold(found.path, why);
            }
            Kind::Directory { opaque: found.directory.is_some_and(tree::is_opaque) }
        }
        FileType::Symlink => Kind::Symlink { target: tree::link_target(found.parent, found.name)? },
        _ if tree::is_whiteout(status) => Kind::Removed,
        _ => {
            left_out.add(found.path, refused(status.st_mode).unwrap_or("of no known kind"));
            unlinkat(found.parent, found.name, AtFlags::empty())?;
            return Ok(None);
        }
    };
    let mut mode = status.st_mode;
    if mode & 0o6000 != 0 && !matches!(kind, Kind::Symlink { .. } | Kind::Removed) {
        left_out.add(found.path, "a set-id bit");
        mode &= !0o6000;
        let kept = Mode::from_raw_mode(mode & 0o1777);
        chmodat(found.parent, found.name, kept, AtFlags::empty())?;
    }
    let attributes = match found.directory {
        Some(directory) => {
            let attributes = plain(tree::attributes(directory)?);
            let length: usize =
                attributes.iter().map(|(name, value)| name.len() + value.len()).sum();
            if length > MOST_ATTRIBUTES {
                left_out.add_untold(found.path, "its attributes are too long to be told of");
                Vec::new()
            } else {
                attributes
            }
        }
        // Read with the content.
        None => Vec::new(),
    };
    let path = found.path.to_vec();
    Ok(Some(Entry { path, mode, modified: tree::modified(status), kind, attributes }))
}

pub(crate) fn plain(attributes: Vec<(CString, Vec<u8>)>) -> Vec<(Vec<u8>, Vec<u8>)> {
    attributes.into_iter().map(|(name, value)| (name.into_bytes(), value)).collect()
}

/// Hashes what is in a batch, in parallel, and writes it; gives the bytes of its files.
fn flush(
    top: &OwnedFd,
    batch: &mut Vec<Entry>,
    pool: &Pool,
    writer: &mut Writer,
    left_out: &mut LeftOut,
) -> io::Result<u64> {
    let files: Vec<usize> = batch
        .iter()
        .enumerate()
        .filter(|(_, entry)| matches!(entry.kind, Kind::File { .. }))
        .map(|(n, _)| n)
        .collect();
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = if files.len() < WORTH_THREADS { 1 } else { threads };
    let next = AtomicUsize::new(0);
    let work = || {
        let (mut done, mut buffer) = (Vec::new(), vec![0; 64 * 1024]);
        while let Some(n) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
            let read = match content(top, &batch[*n], pool, &mut buffer) {
                Err(error) if tree::is_closed(&error) => Err(tree::CLOSED),
                read => read?.told(),
            };
            done.push((*n, read));
        }
        Ok::<_, io::Error>(done)
    };
    let done = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut done = work()?;
        for other in others {
            let more = other.join().map_err(|_| io::Error::other("a hashing thread panicked"))?;
            done.extend(more?);
        }
        Ok::<_, io::Error>(done)
    })?;
    let mut bytes = 0;
    for (n, read) in done {
        let entry = &mut batch[n];
        let read = match read {
            Ok(read) => read,
            Err(why) => {
                left_out.add_untold(&entry.path, why);
                entry.kind = Kind::Removed;
                continue;
            }
        };
        if let Kind::File { size, hash, .. } = &mut entry.kind {
            (*size, *hash) = (read.size, read.hash);
            bytes += read.size;
        }
        entry.attributes = read.attributes;
    }
    for entry in batch.drain(..) {
        writer.add(&entry)?;
    }
    Ok(bytes)
}

/// What was read of one file.
struct Content {
    size: u64,
    hash: [u8; 32],
    attributes: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Content {
    /// Unless its attributes are more than a manifest takes.
    fn told(self) -> Result<Self, &'static str> {
        let length: usize =
            self.attributes.iter().map(|(name, value)| name.len() + value.len()).sum();
        if length > MOST_ATTRIBUTES {
            Err("its attributes are too long to be told of")
        } else {
            Ok(self)
        }
    }
}

fn content(top: &OwnedFd, entry: &Entry, pool: &Pool, buffer: &mut [u8]) -> io::Result<Content> {
    let (parent, name) = tree::parent_of(top, &entry.path)?;
    // The tree is sealed: what was a file is one.
    let mut file = tree::open_file(&parent, &name)?;
    let (size, hash) = hash_of(&mut file, buffer)?;
    pool.add(&parent, &name, &file, &hash)?;
    Ok(Content { size, hash, attributes: plain(tree::attributes(&file)?) })
}

/// Reads until there is no room, or no more.
fn fill(file: &mut File, chunk: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < chunk.len() {
        match file.read(&mut chunk[filled..])? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

/// BLAKE3 of an open file, and how long it is.
pub(crate) fn hash_of(file: &mut File, buffer: &mut [u8]) -> io::Result<(u64, [u8; 32])> {
    let mut hasher = blake3::Hasher::new();
    let mut size = 0;
    if rustix::fs::fstat(&*file)?.st_size.cast_unsigned() >= LARGE {
        // One is read while the other is hashed.
        let (mut chunk, mut next) = (vec![0; CHUNK], vec![0; CHUNK]);
        let mut length = fill(file, &mut chunk)?;
        while length > 0 {
            let read = std::thread::scope(|scope| {
                let reading = scope.spawn(|| fill(file, &mut next));
                hasher.update_rayon(&chunk[..length]);
                reading.join().map_err(|_| io::Error::other("a reading thread panicked"))?
            })?;
            size += length as u64;
            std::mem::swap(&mut chunk, &mut next);
            length = read;
        }
    } else {
        loop {
            let read = file.read(buffer)?;
            if read == 0 {
                break;
            }
            hasher.update(&buffer[..read]);
            size += read as u64;
        }
    }
    Ok((size, *hasher.finalize().as_bytes()))
}
