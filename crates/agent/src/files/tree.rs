//! Deleting, moving, making directories, and telling what lies at a path.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, RenameFlags, Timespec, Timestamps, fchmod, fstat, futimens,
    mkdirat, openat, readlinkat, renameat_with, symlinkat, unlinkat,
};
use rustix::io::Errno;

use super::error::FileError;
use super::list::each;
use super::pending::Pending;
use super::root::{Parents, Place, Root, about, kind, reopened};
use super::wire::FsStat;
use super::write::{Draft, noted, temporary};
use crate::wire::rfc3339;

/// Directories in each other that are walked down.
const DEEPEST: usize = 1024;

/// What lies at a path. Links are followed.
pub(super) fn stat(root: &Root, place: &Place) -> Result<FsStat, FileError> {
    let opened = root.open_at(place, OFlags::PATH)?;
    let about = fstat(&opened).map_err(|errno| place.error(errno))?;
    Ok(FsStat {
        path: place.path.clone(),
        entry_type: kind(about.st_mode),
        size: u64::try_from(about.st_size).unwrap_or_default(),
        modified: rfc3339(about.st_mtime, i32::try_from(about.st_mtime_nsec).unwrap_or_default()),
        mode: format!("{:04o}", about.st_mode & 0o7777),
        uid: about.st_uid,
        gid: about.st_gid,
    })
}

/// Deletes a file, a link (not what it points to), or a directory.
pub(super) fn delete(root: &Root, place: &Place, recursive: bool) -> Result<(), FileError> {
    let (parent, name) = root.parent(place, Parents::Needed)?;
    let failed = |errno| place.error(errno);
    let found = about(parent.as_fd(), &name).map_err(failed)?;
    let found = found.ok_or_else(|| FileError::NotFound(place.path.clone()))?;
    if FileType::from_raw_mode(found.st_mode) != FileType::Directory {
        return unlinkat(&parent, &name, AtFlags::empty()).map_err(failed);
    }
    match unlinkat(&parent, &name, AtFlags::REMOVEDIR) {
        Err(Errno::NOTEMPTY | Errno::EXIST) if recursive => {
            remove(parent.as_fd(), &name, 0).map_err(|error| os(place, &error))
        }
        Err(Errno::NOTEMPTY | Errno::EXIST) => Err(FileError::NotEmpty(place.path.clone())),
        done => done.map_err(failed),
    }
}

/// Removes a directory and what is in it. No link is followed on the way.
fn remove(parent: BorrowedFd<'_>, name: &OsStr, depth: usize) -> io::Result<()> {
    if depth > DEEPEST {
        return Err(Errno::NAMETOOLONG.into());
    }
    let directory = open_directory(parent, name)?;
    each(&directory, &mut |entry| match unlinkat(&directory, entry, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => remove(directory.as_fd(), entry, depth + 1),
        Err(errno) => Err(errno.into()),
    })?;
    match unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Moves. Nothing is lost on the way: what is at the destination is replaced in one step, and only if
/// `overwrite` says so.
pub(super) fn rename(
    root: &Root,
    from: &Place,
    to: &Place,
    overwrite: bool,
) -> Result<(), FileError> {
    let (source, old) = root.parent(from, Parents::Needed)?;
    let moved = about(source.as_fd(), &old).map_err(|errno| from.error(errno))?;
    let moved = moved.ok_or_else(|| FileError::NotFound(from.path.clone()))?;
    let (target, new) = root.parent(to, Parents::Made)?;
    let there = about(target.as_fd(), &new).map_err(|errno| to.error(errno))?;
    if let Some(there) = there {
        if (there.st_dev, there.st_ino) == (moved.st_dev, moved.st_ino) && moved.st_nlink == 1 {
            // Onto itself: it is where it should be.
            return Ok(());
        }
        if !overwrite {
            return Err(FileError::Exists(to.path.clone()));
        }
    }
    let flags = if overwrite { RenameFlags::empty() } else { RenameFlags::NOREPLACE };
    match renameat_with(&source, &old, &target, &new, flags) {
        Ok(()) => Ok(()),
        Err(Errno::XDEV) => {
            carry(root.pending(), source.as_fd(), &old, (&target, &new, to), there.is_some())
                .map_err(|error| os(to, &error))
        }
        Err(Errno::INVAL) if overwrite || there.is_none() => {
            Err(FileError::IntoItself(to.path.clone()))
        }
        // A directory with something in it, or another kind: it steps aside first, and goes last.
        Err(Errno::NOTEMPTY | Errno::EXIST | Errno::ISDIR | Errno::NOTDIR) if overwrite => {
            renameat_with(&source, &old, &target, &new, RenameFlags::EXCHANGE)
                .map_err(|errno| to.error(errno))?;
            discard(source.as_fd(), &old).map_err(|error| os(from, &error))
        }
        Err(errno) => Err(to.error(errno)),
    }
}

/// Moves to another file system: copies beside the destination, then renames there.
fn carry(
    pending: &Pending,
    source: BorrowedFd<'_>,
    old: &OsStr,
    (target, new, to): (&OwnedFd, &OsStr, &Place),
    there: bool,
) -> io::Result<()> {
    let beside = temporary(new);
    let _note = noted(pending, target, &beside);
    let copied = copy(pending, (source, old), (target.as_fd(), &beside), to, 0).and_then(|()| {
        let exchange = if there { RenameFlags::EXCHANGE } else { RenameFlags::NOREPLACE };
        Ok(renameat_with(target, &beside, target, new, exchange)?)
    });
    if there || copied.is_err() {
        drop(discard(target.as_fd(), &beside));
    }
    copied?;
    discard(source, old)
}

fn copy(
    pending: &Pending,
    (source, old): (BorrowedFd<'_>, &OsStr),
    (target, new): (BorrowedFd<'_>, &OsStr),
    place: &Place,
    depth: usize,
) -> io::Result<()> {
    let Some(found) = about(source, old)? else { return Ok(()) };
    if depth > DEEPEST {
        return Err(Errno::NAMETOOLONG.into());
    }
    let mode = Mode::from_raw_mode(found.st_mode & 0o777);
    match FileType::from_raw_mode(found.st_mode) {
        FileType::Symlink => Ok(symlinkat(readlinkat(source, old, Vec::new())?, target, new)?),
        FileType::RegularFile => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let mut reader = File::from(openat(source, old, flags, Mode::empty())?);
            let parent = target.try_clone_to_owned()?;
            let draft = Draft::begin_in(pending, parent, new.to_owned(), place.clone(), mode);
            let mut draft = draft.map_err(io::Error::other)?;
            draft.fill(&mut reader).map_err(io::Error::other)?;
            fchmod(draft.file(), mode)?;
            futimens(draft.file(), &times(&found))?;
            draft.finish().map(drop).map_err(io::Error::other)
        }
        FileType::Directory => {
            mkdirat(target, new, Mode::from_raw_mode(0o700))?;
            let (from, to) = (open_directory(source, old)?, open_directory(target, new)?);
            each(&from, &mut |name| {
                copy(pending, (from.as_fd(), name), (to.as_fd(), name), place, depth + 1)
            })?;
            fchmod(&to, mode)?;
            Ok(futimens(&to, &times(&found))?)
        }
        // Sockets, FIFOs and devices belong to where they are.
        _ => Err(Errno::OPNOTSUPP.into()),
    }
}

fn times(about: &rustix::fs::Stat) -> Timestamps {
    let at = |tv_sec, tv_nsec: u64| Timespec { tv_sec, tv_nsec: tv_nsec.cast_signed() };
    Timestamps {
        last_access: at(about.st_atime, about.st_atime_nsec),
        last_modification: at(about.st_mtime, about.st_mtime_nsec),
    }
}

fn discard(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    match unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => remove(parent, name, 0),
        Err(errno) => Err(errno.into()),
    }
}

/// Opens a directory that is not a link.
pub(super) fn open_directory(parent: impl AsFd, name: &OsStr) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(reopened(openat(parent, name, flags, Mode::empty())?)?)
}

pub(super) fn os(place: &Place, error: &io::Error) -> FileError {
    match error.raw_os_error() {
        Some(errno) => place.error(Errno::from_raw_os_error(errno)),
        None => FileError::Os { path: place.path.clone(), text: error.to_string(), errno: 0 },
    }
}
