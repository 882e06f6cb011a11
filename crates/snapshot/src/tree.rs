//! Looking at a tree beneath a descriptor: one name at a time, no link followed.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, openat, openat2, readlinkat,
    statat,
};
use rustix::io::Errno;

/// Longest list of attribute names, and longest value, that are kept.
const MOST_ATTRIBUTES: usize = 64 * 1024;

/// The prefix under which the overlay keeps notes of its own.
const OVERLAY: &[u8] = b"user.overlay.";
const ESCAPED: &[u8] = b"user.overlay.overlay.";
pub(crate) const OPAQUE: &CStr = c"user.overlay.opaque";

/// What is nested deeper than this is not looked into: each level costs a descriptor.
const DEEPEST: usize = 256;

/// A path is looked up in pieces of at most this many bytes: the kernel takes no longer ones.
const LONGEST_LOOKUP: usize = 2048;

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Opens the top of a tree, whose path is ours.
pub(crate) fn open_top(path: &Path) -> io::Result<OwnedFd> {
    Ok(openat(CWD, path, DIRECTORY, Mode::empty())?)
}

/// Opens what is at a path below a directory, however long the path. No link is followed on the way, whoever
/// puts one there meanwhile.
pub(crate) fn open_beneath(top: impl AsFd, path: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let (mut rest, mut at) = (path, None::<OwnedFd>);
    while rest.len() > LONGEST_LOOKUP {
        let cut = rest[..LONGEST_LOOKUP].iter().rposition(|byte| *byte == b'/');
        let cut = cut.ok_or(Errno::NAMETOOLONG)?;
        let on_the_way = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let from = at.as_ref().map_or(top.as_fd(), AsFd::as_fd);
        at = Some(openat2(from, &rest[..cut], on_the_way, Mode::empty(), how)?);
        rest = &rest[cut + 1..];
    }
    let from = at.as_ref().map_or(top.as_fd(), AsFd::as_fd);
    Ok(openat2(from, rest, flags, Mode::empty(), how)?)
}

/// The directory that the last name of a path is in, and that name.
pub(crate) fn parent_of(top: &OwnedFd, path: &[u8]) -> io::Result<(OwnedFd, CString)> {
    let Some(slash) = path.iter().rposition(|byte| *byte == b'/') else {
        return Ok((top.try_clone()?, CString::new(path)?));
    };
    let directory = OFlags::PATH | OFlags::DIRECTORY;
    Ok((open_beneath(top, &path[..slash], directory)?, CString::new(&path[slash + 1..])?))
}

/// Opens a directory at a path, for reading.
pub(crate) fn directory_beneath(top: impl AsFd, path: &[u8]) -> io::Result<OwnedFd> {
    open_beneath(top, path, OFlags::RDONLY | OFlags::DIRECTORY)
}

/// Opens a regular file below a directory whose path is ours. No link is followed on the way, and nothing else
/// is opened, whoever made what is there.
pub fn open_regular(directory: &Path, path: &[u8]) -> io::Result<std::fs::File> {
    file_beneath(&open_top(directory)?, path)
}

/// Opens a regular file at a path, for reading.
pub(crate) fn file_beneath(top: &OwnedFd, path: &[u8]) -> io::Result<std::fs::File> {
    let (parent, name) = parent_of(top, path)?;
    open_file(parent, &name)
}

pub(crate) fn open_directory(at: impl AsFd, name: &CStr) -> io::Result<OwnedFd> {
    Ok(openat(at, name, DIRECTORY, Mode::empty())?)
}

/// Opens a regular file for reading; an error if it is, by now, anything else.
pub(crate) fn open_file(at: impl AsFd, name: &CStr) -> io::Result<std::fs::File> {
    // Non-blocking: a FIFO that was put in its place must not hold us.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = openat(at, name, flags, Mode::empty())?;
    if FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) != FileType::RegularFile {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not a regular file"));
    }
    Ok(file.into())
}

pub(crate) fn look(at: impl AsFd, name: &CStr) -> io::Result<Stat> {
    Ok(statat(at, name, AtFlags::SYMLINK_NOFOLLOW)?)
}

pub(crate) fn link_target(at: impl AsFd, name: &CStr) -> io::Result<Vec<u8>> {
    Ok(readlinkat(at, name, Vec::new())?.into_bytes())
}

pub(crate) fn is_whiteout(status: &Stat) -> bool {
    FileType::from_raw_mode(status.st_mode) == FileType::CharacterDevice && status.st_rdev == 0
}

pub(crate) fn is_opaque(directory: impl AsFd) -> bool {
    let mut value = [0_u8; 1];
    rustix::fs::fgetxattr(directory, OPAQUE, &mut value) == Ok(1) && value == *b"y"
}

/// Nanoseconds since 1970.
pub(crate) fn modified(status: &Stat) -> i64 {
    let nanoseconds = i64::try_from(status.st_mtime_nsec).unwrap_or_default();
    status.st_mtime.saturating_mul(1_000_000_000).saturating_add(nanoseconds)
}

/// Names and values of the attributes that people set: those of the kernel and of the overlay are not
/// theirs. None where the file system has none.
pub(crate) fn attributes(file: impl AsFd) -> io::Result<Vec<(CString, Vec<u8>)>> {
    let file = file.as_fd();
    let mut names = Vec::with_capacity(256);
    let names = loop {
        match rustix::fs::flistxattr(file, rustix::buffer::spare_capacity(&mut names)) {
            Ok(_) => break names,
            Err(Errno::RANGE) if names.capacity() < MOST_ATTRIBUTES => {
                names.reserve(names.capacity() * 2);
            }
            Err(Errno::OPNOTSUPP | Errno::RANGE) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        }
    };
    let mut found = Vec::new();
    for name in names.split(|byte| *byte == 0) {
        // Those that somebody in a jail gave such a name are kept under another.
        let own = name.starts_with(OVERLAY) && !name.starts_with(ESCAPED);
        if !name.starts_with(b"user.") || own {
            continue;
        }
        let name = CString::new(name)?;
        let mut value = vec![0; MOST_ATTRIBUTES];
        if let Ok(length) = rustix::fs::fgetxattr(file, &name, &mut value) {
            value.truncate(length);
            found.push((name, value));
        }
    }
    Ok(found)
}

/// Something in a tree.
pub(crate) struct Found<'a> {
    /// From the top of the tree.
    pub(crate) path: &'a [u8],
    pub(crate) parent: BorrowedFd<'a>,
    pub(crate) name: &'a CStr,
    pub(crate) status: Stat,
    /// Of a directory: opened, if it can be.
    pub(crate) directory: Option<BorrowedFd<'a>>,
    /// Why what is in the directory is not looked at.
    pub(crate) unread: Option<&'static str>,
}

/// Goes through a tree in the order of [`crate::order`]. What vanishes meanwhile is passed over.
pub(crate) fn walk(
    top: &OwnedFd,
    see: &mut dyn FnMut(&Found<'_>) -> io::Result<()>,
) -> io::Result<()> {
    walk_directory(top.as_fd(), &mut Vec::new(), 0, see)
}

fn walk_directory(
    directory: BorrowedFd<'_>,
    path: &mut Vec<u8>,
    depth: usize,
    see: &mut dyn FnMut(&Found<'_>) -> io::Result<()>,
) -> io::Result<()> {
    let length = path.len();
    for name in names(directory)? {
        let status = match look(directory, &name) {
            Ok(status) => status,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        if length > 0 {
            path.push(b'/');
        }
        path.extend_from_slice(name.as_bytes());
        let is_directory = FileType::from_raw_mode(status.st_mode) == FileType::Directory;
        let opened = is_directory.then(|| open_directory(directory, &name)).transpose();
        match opened {
            Ok(opened) => {
                let child = opened.as_ref().map(AsFd::as_fd);
                let unread = (child.is_some() && depth >= DEEPEST).then_some(TOO_DEEP);
                let found = Found {
                    path,
                    parent: directory,
                    name: &name,
                    status,
                    directory: child,
                    unread,
                };
                see(&found)?;
                if let (Some(child), None) = (child, unread) {
                    walk_directory(child, path, depth + 1, see)?;
                }
            }
            Err(error) if vanished(&error) => {}
            Err(error) if is_closed(&error) => {
                let unread = Some(CLOSED);
                let found =
                    Found { path, parent: directory, name: &name, status, directory: None, unread };
                see(&found)?;
            }
            Err(error) => return Err(error),
        }
        path.truncate(length);
    }
    Ok(())
}

/// Whether its owner has closed something to themselves, and we are not root, whom no mode stops.
pub(crate) fn is_closed(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::ACCESS.raw_os_error())
}

/// Why that is not told of.
pub(crate) const CLOSED: &str =
    "closed to its own owner, so that a server without root cannot read it";

const TOO_DEEP: &str = "nested too deep to be told of";

/// Whether something is not there any more, or is something else by now.
pub(crate) fn vanished(error: &io::Error) -> bool {
    let known = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(known, Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP))
        || error.kind() == io::ErrorKind::InvalidData
}

/// The names in a directory, sorted.
pub(crate) fn names(directory: BorrowedFd<'_>) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            names.push(name.to_owned());
        }
    }
    names.sort_unstable();
    // While others rename, some file systems give a name twice.
    names.dedup();
    Ok(names)
}
