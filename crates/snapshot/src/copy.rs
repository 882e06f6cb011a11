//! Copying what is in a tree: content by reflink where the file system can, holes kept; owner, mode,
//! times and attributes.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use rustix::fs::{
    AtFlags, Gid, Mode, SeekFrom, Stat, Timespec, Timestamps, Uid, XattrFlags, chownat,
    copy_file_range, fchmod, fchown, fsetxattr, ftruncate, futimens, ioctl_ficlone, seek,
    utimensat,
};
use rustix::io::Errno;

/// How content was copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// The blocks are shared until one of the two is written to.
    Reflink,
    Copy,
}

/// Copies content into an empty file.
pub(crate) fn content(from: &File, to: &File) -> io::Result<Method> {
    let size = rustix::fs::fstat(from)?.st_size.cast_unsigned();
    if size == 0 {
        return Ok(Method::Copy);
    }
    match ioctl_ficlone(to, from) {
        Ok(()) => return Ok(Method::Reflink),
        Err(Errno::OPNOTSUPP | Errno::XDEV | Errno::INVAL | Errno::TXTBSY | Errno::NOTTY) => {}
        Err(error) => return Err(error.into()),
    }
    let mut at = 0;
    loop {
        // Only what is there: a hole stays one.
        let start = match seek(from, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        let end = seek(from, SeekFrom::Hole(start))?;
        extent(from, to, start, end)?;
        at = end;
    }
    ftruncate(to, size)?;
    Ok(Method::Copy)
}

fn extent(from: &File, to: &File, start: u64, end: u64) -> io::Result<()> {
    let (mut at_from, mut at_to) = (start, start);
    while at_from < end {
        let length = usize::try_from(end - at_from).unwrap_or(usize::MAX);
        match copy_file_range(from, Some(&mut at_from), to, Some(&mut at_to), length) {
            // Shorter than it was: somebody writes to it.
            Ok(0) => break,
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => {
                return by_hand(from, to, at_from, end);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn by_hand(from: &File, to: &File, mut at: u64, end: u64) -> io::Result<()> {
    use std::os::unix::fs::FileExt as _;
    let mut buffer = vec![0; 256 * 1024];
    while at < end {
        let most = buffer.len().min(usize::try_from(end - at).unwrap_or(usize::MAX));
        let read = from.read_at(&mut buffer[..most], at)?;
        if read == 0 {
            break;
        }
        to.write_all_at(&buffer[..read], at)?;
        at += read as u64;
    }
    Ok(())
}

/// Gives a file or directory the owner, mode, attributes and times of another; no set-id bit.
pub(crate) fn dress(
    file: impl AsFd,
    status: &Stat,
    attributes: &[(CString, Vec<u8>)],
) -> io::Result<()> {
    let file = file.as_fd();
    for (name, value) in attributes {
        fsetxattr(file, name, value, XattrFlags::empty())?;
    }
    own(fchown(file, Some(Uid::from_raw(status.st_uid)), Some(Gid::from_raw(status.st_gid))))?;
    fchmod(file, Mode::from_raw_mode(status.st_mode & 0o1777))?;
    Ok(futimens(file, &times(status))?)
}

/// The same for what cannot be opened: a symbolic link has neither mode nor attributes.
pub(crate) fn dress_link(at: impl AsFd, name: &std::ffi::CStr, status: &Stat) -> io::Result<()> {
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    let owner = (Uid::from_raw(status.st_uid), Gid::from_raw(status.st_gid));
    own(chownat(at.as_fd(), name, Some(owner.0), Some(owner.1), flags))?;
    Ok(utimensat(at, name, &times(status), flags)?)
}

/// An ordinary user's files are their own already, but for what the kernel made for them.
fn own(changed: rustix::io::Result<()>) -> io::Result<()> {
    match changed {
        Err(Errno::PERM) if !rustix::process::geteuid().is_root() => Ok(()),
        other => Ok(other?),
    }
}

fn times(status: &Stat) -> Timestamps {
    let time = |seconds, nanoseconds| Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    Timestamps {
        last_access: time(status.st_atime, i64::try_from(status.st_atime_nsec).unwrap_or_default()),
        last_modification: time(
            status.st_mtime,
            i64::try_from(status.st_mtime_nsec).unwrap_or_default(),
        ),
    }
}
