//! A directory as a tar, streamed.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _, Write};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, Stat, fstat, openat, readlinkat};
use rustix::io::Errno;
use tar::{Builder, EntryType, Header};

use super::list::each;
use super::root::about;
use super::tree::open_directory;

/// Directories in each other that are walked down.
const DEEPEST: usize = 1024;

/// Writes what is below a directory. Links stay links; sockets, FIFOs and devices are left out, and so is what may
/// not be read: the answer's head is out already.
pub(super) fn write(directory: &OwnedFd, out: &mut dyn Write) -> io::Result<()> {
    let mut builder = Builder::new(out);
    walk(directory, Path::new(""), &mut builder, 0)?;
    builder.into_inner().map(drop)
}

fn walk(
    directory: &OwnedFd,
    path: &Path,
    builder: &mut Builder<&mut dyn Write>,
    depth: usize,
) -> io::Result<()> {
    if depth > DEEPEST {
        return Err(io::Error::other("directories lie too deep in each other"));
    }
    each(directory, &mut |name| {
        let Some(found) = about(directory.as_fd(), name)? else { return Ok(()) };
        let path = path.join(name);
        match FileType::from_raw_mode(found.st_mode) {
            FileType::Directory => {
                let mut header = header(&found, EntryType::Directory, 0);
                builder.append_data(&mut header, &path, io::empty())?;
                match open_directory(directory, name) {
                    Ok(inside) => walk(&inside, &path, builder, depth + 1),
                    Err(_) => Ok(()),
                }
            }
            FileType::Symlink => {
                let target = readlinkat(directory, name, Vec::new())?;
                let mut header = header(&found, EntryType::Symlink, 0);
                let target: &OsStr = std::os::unix::ffi::OsStrExt::from_bytes(target.as_bytes());
                builder.append_link(&mut header, &path, target)
            }
            FileType::RegularFile => file(directory, name, &path, builder),
            _ => Ok(()),
        }
    })
}

/// A file, as long as it was when it was opened: one that grows is cut, one that shrinks is filled with
/// zeros, as the length stands before the content.
fn file(
    directory: &OwnedFd,
    name: &OsStr,
    path: &Path,
    builder: &mut Builder<&mut dyn Write>,
) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = match openat(directory, name, flags, Mode::empty()) {
        Ok(opened) => opened,
        Err(Errno::NOENT | Errno::ACCESS | Errno::PERM) => return Ok(()),
        Err(errno) => return Err(errno.into()),
    };
    let found = fstat(&opened)?;
    let size = u64::try_from(found.st_size).unwrap_or_default();
    let mut header = header(&found, EntryType::Regular, size);
    builder.append_data(&mut header, path, File::from(opened).chain(io::repeat(0)).take(size))
}

fn header(about: &Stat, kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(about.st_mode & 0o777);
    header.set_uid(about.st_uid.into());
    header.set_gid(about.st_gid.into());
    header.set_mtime(u64::try_from(about.st_mtime).unwrap_or_default());
    header
}
