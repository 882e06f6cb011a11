//! From a sealed tree to its manifest.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::{AtFlags, FileType, Mode, chmodat, unlinkat};

use crate::manifest::{Entry, Kind, ManifestHash, Writer};
use crate::pool::Pool;
use crate::tree::{self, Found};

/// Entries that are hashed together, and so held at once.
const BATCH: usize = 2048;

/// With fewer files than this, starting threads costs more than they save.
const WORTH_THREADS: usize = 32;

/// From this size on, one file is hashed by all processors.
const LARGE: u64 = 1 << 20;
const CHUNK: usize = 1 << 20;

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
    pub closed: u64,
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
    fn add_closed(&mut self, path: &[u8]) {
        self.closed += 1;
        self.add(path, tree::CLOSED);
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

fn entry(found: &Found<'_>, left_out: &mut LeftOut) -> io::Result<Option<Entry>> {
    let status = &found.status;
    let kind = match FileType::from_raw_mode(status.st_mode) {
        FileType::RegularFile => Kind::File {
            size: status.st_size.cast_unsigned(),
            hash: [0; 32],
            link: (status.st_nlink > 1).then_some(status.st_ino),
        },
        FileType::Directory => {
            if found.directory.is_none() {
                left_out.add_closed(found.path);
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
        Some(directory) => plain(tree::attributes(directory)?),
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
                Err(error) if tree::is_closed(&error) => None,
                read => Some(read?),
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
    let mut told = vec![true; batch.len()];
    for (n, read) in done {
        let entry = &mut batch[n];
        let Some(read) = read else {
            left_out.add_closed(&entry.path);
            told[n] = false;
            continue;
        };
        if let Kind::File { size, hash, .. } = &mut entry.kind {
            (*size, *hash) = (read.size, read.hash);
            bytes += read.size;
        }
        entry.attributes = read.attributes;
    }
    for (entry, _) in batch.drain(..).zip(told).filter(|(_, told)| *told) {
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

fn content(top: &OwnedFd, entry: &Entry, pool: &Pool, buffer: &mut [u8]) -> io::Result<Content> {
    let path = CString::new(entry.path.as_slice())?;
    // The tree is sealed: what was a file is one.
    let mut file = tree::open_file(top, &path)?;
    let (size, hash) = hash_of(&mut file, buffer)?;
    pool.add(top, &path, &file, &hash)?;
    Ok(Content { size, hash, attributes: plain(tree::attributes(&file)?) })
}

/// BLAKE3 of an open file, and how long it is.
pub(crate) fn hash_of(file: &mut File, buffer: &mut [u8]) -> io::Result<(u64, [u8; 32])> {
    let mut hasher = blake3::Hasher::new();
    let mut size = 0;
    if rustix::fs::fstat(&*file)?.st_size.cast_unsigned() >= LARGE {
        let mut chunk = vec![0; CHUNK];
        loop {
            let read = file.read(&mut chunk)?;
            if read == 0 {
                break;
            }
            hasher.update_rayon(&chunk[..read]);
            size += read as u64;
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
