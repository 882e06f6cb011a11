//! Unpacking an uploaded tar below a directory, whatever it tries.
//!
//! Each entry is created by its own look-up below the destination, which no link may leave. Links are made
//! last, so that nothing in the archive is written through one of its own.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Component, Path, PathBuf};

use axum::body::Body;
use http_body_util::BodyExt as _;
use rustix::fs::{
    AtFlags, Mode, OFlags, Timespec, Timestamps, fchmod, futimens, linkat, mkdirat, symlinkat,
    unlinkat,
};
use rustix::io::Errno;
use tar::{Archive, Entry, EntryType};

use super::error::FileError;
use super::pending::Pending;
use super::root::{Place, Root};
use super::tree::os;
use super::walk::{self, Absolute};
use super::wire::FsUploaded;
use super::write::Draft;
use crate::blocking::blocking;

/// Entries of an archive, and bytes of a name: more is not an upload but an attack.
const MOST_ENTRIES: u64 = 1_000_000;
const LONGEST_NAME: usize = 4096;

/// Bytes of all files of an archive, those counted that it does not hold (sparse files say how large they would be).
const LARGEST: u64 = 256 * 1024 * 1024 * 1024;

/// Bytes of an entry that only tells of the next.
const LONGEST_EXTENSION: u64 = 256 * 1024;

/// Takes an upload whole, on disk and without a name, then unpacks it: an archive that breaks off or that
/// is refused has changed nothing.
pub(super) async fn upload(root: Root, place: Place, body: Body) -> Result<FsUploaded, FileError> {
    let (made, spool) = {
        let (root, place) = (root.clone(), place.clone());
        blocking(move || {
            let made = root.make_directory(&place)?;
            let made = super::root::reopened(&made).map_err(|errno| place.error(errno))?;
            let spool = spool(&made).map_err(|errno| place.error(errno))?;
            Ok::<_, FileError>((made, spool))
        })
        .await?
    };
    let mut spool = tokio::fs::File::from_std(File::from(spool));
    let mut body = body;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| FileError::Upload)?;
        if let Ok(data) = frame.into_data() {
            let written = tokio::io::AsyncWriteExt::write_all(&mut spool, &data).await;
            written.map_err(|error| os(&place, &error))?;
        }
    }
    let flushed = tokio::io::AsyncWriteExt::flush(&mut spool).await;
    flushed.map_err(|error| os(&place, &error))?;
    let spool = spool.into_std().await;
    blocking(move || unpack(root.pending(), &made, &place, spool)).await
}

/// A nameless file on the file system of the destination, gone with its descriptor.
fn spool(directory: &OwnedFd) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
    rustix::fs::openat(directory, ".", flags, Mode::from_raw_mode(0o600))
}

fn unpack(
    pending: &Pending,
    destination: &OwnedFd,
    place: &Place,
    mut spool: File,
) -> Result<FsUploaded, FileError> {
    let rewind = |spool: &mut File| spool.rewind().map_err(|error| os(place, &error));
    rewind(&mut spool)?;
    check(&spool)?;
    rewind(&mut spool)?;
    let (links, done) = (Vec::new(), FsUploaded::default());
    let mut unpacking = Unpacking { pending, destination, place, links, done };
    let mut archive = Archive::new(&spool);
    for entry in archive.entries().map_err(|error| broken(&error))? {
        unpacking.entry(entry.map_err(|error| broken(&error))?)?;
    }
    let made = unpacking.links()?;
    unpacking.check_links(&made)?;
    Ok(unpacking.done)
}

/// Reads the whole archive once before anything is written.
fn check(spool: &File) -> Result<(), FileError> {
    let mut magic = [0_u8; 2];
    let mut reader = spool;
    if matches!(reader.read(&mut magic), Ok(2)) && magic == [0x1f, 0x8b] {
        return Err(FileError::Entry(
            "is none: the body is compressed; send a plain tar".to_owned(),
        ));
    }
    reader.rewind().map_err(|error| broken(&error))?;
    check_extensions(spool)?;
    reader.rewind().map_err(|error| broken(&error))?;
    let mut archive = Archive::new(spool);
    let (mut count, mut total) = (0_u64, 0_u64);
    for entry in archive.entries().map_err(|error| broken(&error))? {
        let entry = entry.map_err(|error| broken(&error))?;
        count += 1;
        total = total.saturating_add(entry.size());
        if total > LARGEST {
            return Err(FileError::Entry(format!(
                "would make the archive larger than {LARGEST} bytes"
            )));
        }
        if count > MOST_ENTRIES {
            return Err(FileError::Entry(format!("too many: {MOST_ENTRIES} at most")));
        }
        let name = name(&entry)?;
        if let (EntryType::Symlink | EntryType::Link, Some(name)) =
            (entry.header().entry_type(), &name)
        {
            let target = link(&entry)?;
            if entry.header().entry_type() == EntryType::Link {
                relative(&target)?;
            } else {
                stays_inside(name, &target)?;
            }
        }
    }
    Ok(())
}

/// Looks at the entries that tell of others, which reading the others takes into memory whole.
fn check_extensions(spool: &File) -> Result<(), FileError> {
    let mut archive = Archive::new(spool);
    for entry in archive.entries().map_err(|error| broken(&error))?.raw(true) {
        let entry = entry.map_err(|error| broken(&error))?;
        let extends = matches!(
            entry.header().entry_type(),
            EntryType::GNULongName
                | EntryType::GNULongLink
                | EntryType::XHeader
                | EntryType::XGlobalHeader
        );
        if extends && entry.size() > LONGEST_EXTENSION {
            return Err(FileError::Entry(
                "has a name, or attributes, that are too long".to_owned(),
            ));
        }
    }
    Ok(())
}

/// A symbolic link may point anywhere below the destination, and nowhere else.
fn stays_inside(name: &Path, target: &Path) -> Result<(), FileError> {
    let mut depth = name.parent().map_or(0, |parent| parent.components().count());
    let mut descended = false;
    for part in target.components() {
        match part {
            Component::Normal(_) => descended = true,
            Component::CurDir => {}
            // After a name, which may be a link itself, nobody knows where `..` leads.
            Component::ParentDir if depth > 0 && !descended => depth -= 1,
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                return Err(leaves(name));
            }
        }
    }
    Ok(())
}

struct Unpacking<'a> {
    pending: &'a Pending,
    destination: &'a OwnedFd,
    place: &'a Place,
    links: Vec<(PathBuf, PathBuf, EntryType)>,
    done: FsUploaded,
}

impl Unpacking<'_> {
    fn entry(&mut self, mut entry: Entry<'_, &File>) -> Result<(), FileError> {
        let Some(name) = name(&entry)? else { return Ok(()) };
        let header = entry.header();
        let mode = Mode::from_raw_mode(header.mode().unwrap_or(0o644) & 0o777);
        let mtime = header.mtime().unwrap_or_default();
        match header.entry_type() {
            EntryType::Directory => {
                let made = self.directory(&name)?;
                let made =
                    super::root::reopened(&made).map_err(|errno| self.error(&name, errno))?;
                // One that we could not write to would refuse its own entries.
                fchmod(&made, mode | Mode::RWXU).map_err(|errno| self.error(&name, errno))?;
            }
            EntryType::Symlink | EntryType::Link => {
                self.links.push((name.clone(), link(&entry)?, header.entry_type()));
                return Ok(());
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let parent = self.directory(parent_of(&name))?;
                let leaf = leaf(&name);
                self.clear_a_link(&parent, &leaf)?;
                let place = Place::clone(self.place);
                let mut draft = Draft::begin_in(self.pending, parent, leaf, place, mode)?;
                draft.fill_with_holes(&mut entry)?;
                let failed = |errno| self.error(&name, errno);
                fchmod(draft.file(), mode).map_err(failed)?;
                futimens(draft.file(), &at(mtime)).map_err(failed)?;
                draft.finish()?;
            }
            // Devices and FIFOs are not files; others (`pax_global_header`) say nothing about one.
            _ => return Ok(()),
        }
        self.done.add(self.place.child(name.as_os_str()));
        Ok(())
    }

    /// Makes the links; gives the symbolic ones.
    fn links(&mut self) -> Result<Vec<PathBuf>, FileError> {
        let mut symbolic = Vec::new();
        for (name, target, kind) in std::mem::take(&mut self.links) {
            let parent = self.directory(parent_of(&name))?;
            let leaf = leaf(&name);
            self.clear_a_link(&parent, &leaf)?;
            let made = if kind == EntryType::Symlink {
                symlinkat(&target, &parent, &leaf)
            } else {
                self.directory(parent_of(&target)).and_then(|from| {
                    let linked =
                        linkat(&from, self::leaf(&target), &parent, &leaf, AtFlags::empty());
                    linked.map_err(|errno| self.error(&target, errno))
                })?;
                Ok(())
            };
            made.map_err(|errno| self.error(&name, errno))?;
            self.done.add(self.place.child(name.as_os_str()));
            if kind == EntryType::Symlink {
                symbolic.push(name);
            }
        }
        Ok(symbolic)
    }

    /// Where links lead, together with those that were there already. One that leads out is taken away.
    fn check_links(&self, symbolic: &[PathBuf]) -> Result<(), FileError> {
        for name in symbolic {
            let flags = OFlags::PATH | OFlags::CLOEXEC;
            let found = walk::open(self.destination, name, flags, Absolute::Outside);
            if matches!(found, Err(Errno::XDEV)) {
                let _ = unlinkat(self.destination, name, AtFlags::empty());
                return Err(leaves(name));
            }
        }
        Ok(())
    }

    /// A link that is there already is replaced, not written through.
    fn clear_a_link(&self, parent: &OwnedFd, leaf: &OsString) -> Result<(), FileError> {
        let found = super::root::about(parent.as_fd(), leaf);
        let is_link = matches!(found, Ok(Some(about))
            if rustix::fs::FileType::from_raw_mode(about.st_mode).is_symlink());
        if !is_link {
            return Ok(());
        }
        unlinkat(parent, leaf, AtFlags::empty()).map_err(|errno| self.error(Path::new(leaf), errno))
    }

    /// Opens a directory below the destination, making what is missing. No link leads out of it.
    fn directory(&self, below: &Path) -> Result<OwnedFd, FileError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = |below: &Path| {
            let below = if below.as_os_str().is_empty() { Path::new(".") } else { below };
            walk::open(self.destination, below, flags, Absolute::Outside)
        };
        let mut made = PathBuf::new();
        let mut opened = open(&made);
        for part in below.components() {
            made.push(part);
            let next = match open(&made) {
                Err(Errno::NOENT) => {
                    let parent = opened.map_err(|errno| self.error(below, errno))?;
                    match mkdirat(&parent, part.as_os_str(), Mode::from_raw_mode(0o777)) {
                        Ok(()) | Err(Errno::EXIST) => open(&made),
                        Err(errno) => Err(errno),
                    }
                }
                opened => opened,
            };
            opened = next;
        }
        opened.map_err(|errno| match errno {
            Errno::XDEV | Errno::LOOP => leaves(below),
            errno => self.error(below, errno),
        })
    }

    fn error(&self, name: &Path, errno: Errno) -> FileError {
        FileError::of(&self.place.child(name.as_os_str()), errno)
    }
}

/// The name of an entry, from the destination on. `None` for the destination itself.
fn name<R: Read>(entry: &Entry<'_, R>) -> Result<Option<PathBuf>, FileError> {
    let path = entry.path().map_err(|error| broken(&error))?;
    relative(&path)
}

fn relative(path: &Path) -> Result<Option<PathBuf>, FileError> {
    if path.as_os_str().len() > LONGEST_NAME {
        return Err(FileError::Entry("has a name that is too long".to_owned()));
    }
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(part) => clean.push(part),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                return Err(leaves(path));
            }
        }
    }
    Ok((!clean.as_os_str().is_empty()).then_some(clean))
}

fn link<R: Read>(entry: &Entry<'_, R>) -> Result<PathBuf, FileError> {
    let target = entry.link_name().map_err(|error| broken(&error))?;
    let target = target.filter(|target| !target.as_os_str().is_empty());
    let target = target.ok_or_else(|| FileError::Entry("is a link to nothing".to_owned()))?;
    Ok(target.into_owned())
}

fn parent_of(name: &Path) -> &Path {
    name.parent().unwrap_or(Path::new(""))
}

fn leaf(name: &Path) -> OsString {
    name.file_name().unwrap_or_default().to_owned()
}

fn at(mtime: u64) -> Timestamps {
    let time = Timespec { tv_sec: i64::try_from(mtime).unwrap_or_default(), tv_nsec: 0 };
    Timestamps { last_access: time, last_modification: time }
}

fn leaves(path: &Path) -> FileError {
    FileError::Entry(format!("leaves the destination: {}", path.display()))
}

fn broken(error: &io::Error) -> FileError {
    FileError::Entry(format!("cannot be read: {error}"))
}
