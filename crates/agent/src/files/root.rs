//! The root below which every path lies, and looking paths up there.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, PROC_SUPER_MAGIC, Stat, fstat, fstatfs, mkdirat, open,
    readlinkat, statat,
};
use rustix::io::Errno;

use super::error::FileError;
use super::pending::Pending;
use super::walk::{self, Absolute};

/// Links followed by us (the kernel counts its own).
const MOST_LINKS: usize = 40;

/// `sysfs`, whose files can block or act when they are read.
const SYSFS_MAGIC: u64 = 0x6265_6572;

/// A directory of the machine, and all that lies below it.
#[derive(Debug, Clone)]
pub(crate) struct Root {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    directory: OwnedFd,
    path: PathBuf,
    home: PathBuf,
    absolute: Absolute,
    pending: Pending,
    /// Held while an upload takes its place.
    turn: Mutex<()>,
}

/// A path that was asked for.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// Absolute, as it is told back.
    pub(super) path: String,
    /// From the root on; `.` for the root itself.
    below: PathBuf,
}

impl Place {
    pub(super) fn error(&self, errno: Errno) -> FileError {
        FileError::of(&self.path, errno)
    }

    /// The path of something in this directory.
    pub(super) fn child(&self, name: &OsStr) -> String {
        let name = name.to_string_lossy();
        if self.path.ends_with('/') {
            format!("{}{name}", self.path)
        } else {
            format!("{}/{name}", self.path)
        }
    }
}

impl Root {
    /// # Errors
    ///
    /// If the root is no directory.
    pub(crate) fn open(path: &Path, home: &Path, pending: Pending) -> std::io::Result<Self> {
        let path = path.canonicalize()?;
        let directory =
            open(&path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        // Below `/` there is nothing to leave, and absolute links must work; below anything else a link
        // that begins at `/` means a place outside.
        let absolute = if path == Path::new("/") { Absolute::FromTop } else { Absolute::Outside };
        // A home that lies outside would make every relative path an error.
        let home = home.canonicalize().unwrap_or_else(|_| home.to_owned());
        let home = if home.starts_with(&path) { home } else { path.clone() };
        Ok(Self {
            inner: Arc::new(Inner {
                directory,
                path,
                home,
                absolute,
                pending,
                turn: Mutex::new(()),
            }),
        })
    }

    /// Where relative paths begin.
    pub(crate) fn home(&self) -> &Path {
        &self.inner.home
    }

    /// Where names are noted that a file has for a moment.
    pub(super) fn pending(&self) -> &Pending {
        &self.inner.pending
    }

    pub(super) fn turn(&self) -> MutexGuard<'_, ()> {
        self.inner.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads a path as it was asked for.
    pub(crate) fn place(&self, asked: &str) -> Result<Place, FileError> {
        if asked.contains('\0') {
            return Err(FileError::Path("it has a NUL in it".to_owned()));
        }
        let given = Path::new(asked);
        let path = if given.is_absolute() {
            given.to_owned()
        } else if given.components().any(|part| part == Component::ParentDir) {
            return Err(FileError::Path(format!("a relative path may not hold `..`: {asked}")));
        } else {
            self.inner.home.join(given)
        };
        let shown = path.to_string_lossy().into_owned();
        let Ok(below) = path.strip_prefix(&self.inner.path) else {
            return Err(FileError::Outside(shown));
        };
        let below = if below.as_os_str().is_empty() { Path::new(".") } else { below };
        Ok(Place { path: shown, below: below.to_owned() })
    }

    /// Opens what lies at a place.
    pub(super) fn open_at(&self, place: &Place, flags: OFlags) -> Result<OwnedFd, FileError> {
        self.look_up(&place.below, flags).map_err(|errno| place.error(errno))
    }

    /// Opens a directory to list it.
    pub(super) fn directory(&self, place: &Place) -> Result<OwnedFd, FileError> {
        let opened = self.open_at(place, OFlags::RDONLY | OFlags::DIRECTORY)?;
        refuse_the_kernels(&opened, place)?;
        Ok(opened)
    }

    /// Opens a regular file if the kernel has all it needs for that in memory: so quickly that an async worker may.
    pub(super) fn file_at_hand(&self, place: &Place) -> Option<(OwnedFd, Stat)> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let Inner { directory, absolute, .. } = &*self.inner;
        let opened = walk::open_at_hand(directory, &place.below, flags, *absolute)?;
        let about = fstat(&opened).ok()?;
        let is_file = FileType::from_raw_mode(about.st_mode) == FileType::RegularFile;
        (is_file && refuse_the_kernels(&opened, place).is_ok()).then_some((opened, about))
    }

    /// Opens a regular file. Devices, FIFOs and sockets never block us, and are not files here.
    pub(super) fn file(&self, place: &Place, flags: OFlags) -> Result<(OwnedFd, Stat), FileError> {
        let opened = self.open_at(place, flags | OFlags::NONBLOCK | OFlags::NOCTTY);
        let opened = opened.map_err(|error| match error {
            // What a FIFO without a reader and a socket say to who opens them.
            FileError::Os { ref path, errno, .. } if errno == Errno::NXIO.raw_os_error() => {
                FileError::NotAFile(path.clone())
            }
            error => error,
        })?;
        let about = fstat(&opened).map_err(|errno| place.error(errno))?;
        if FileType::from_raw_mode(about.st_mode) != FileType::RegularFile {
            return Err(FileError::NotAFile(place.path.clone()));
        }
        refuse_the_kernels(&opened, place)?;
        Ok((opened, about))
    }

    /// The directory a place lies in, and its name there. With `make`, directories that are missing
    /// are made.
    pub(super) fn parent(
        &self,
        place: &Place,
        make: Parents,
    ) -> Result<(OwnedFd, OsString), FileError> {
        let below = &place.below;
        let Some(name) = below.file_name() else {
            return Err(FileError::Path(format!("the root itself, or no name: {}", place.path)));
        };
        let parent = below.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        let opened = match make {
            Parents::Needed => self.look_up(parent, OFlags::PATH | OFlags::DIRECTORY),
            Parents::Made => self.make(parent),
        };
        Ok((opened.map_err(|errno| place.error(errno))?, name.to_owned()))
    }

    /// Where a file is to be written: links at its end are followed, as `open` would.
    pub(super) fn target(
        &self,
        place: &Place,
        make: Parents,
    ) -> Result<(OwnedFd, OsString), FileError> {
        let mut place = place.clone();
        for _ in 0..MOST_LINKS {
            let (parent, name) = self.parent(&place, make)?;
            let link = match readlinkat(&parent, &name, Vec::new()) {
                Ok(link) => link,
                Err(Errno::INVAL | Errno::NOENT) => return Ok((parent, name)),
                Err(errno) => return Err(place.error(errno)),
            };
            let link = Path::new(OsStr::from_bytes(link.as_bytes())).to_owned();
            let from = place.below.parent().unwrap_or(Path::new("."));
            place.below = match link.strip_prefix(&self.inner.path) {
                Ok(below) if link.is_absolute() => below.to_owned(),
                _ if link.is_absolute() => return Err(FileError::Outside(place.path)),
                _ => from.join(link),
            };
        }
        Err(place.error(Errno::LOOP))
    }

    /// Makes a directory and those above it, and opens it.
    pub(super) fn make_directory(&self, place: &Place) -> Result<OwnedFd, FileError> {
        self.make(&place.below).map_err(|errno| match errno {
            Errno::EXIST => FileError::NotADirectory(place.path.clone()),
            errno => place.error(errno),
        })
    }

    fn make(&self, below: &Path) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        match self.look_up(below, flags) {
            Err(Errno::NOENT) => {}
            found => return found,
        }
        let (Some(name), parent) = (below.file_name(), below.parent()) else {
            return Err(Errno::NOENT);
        };
        let parent = parent.filter(|parent| !parent.as_os_str().is_empty());
        let parent = self.make(parent.unwrap_or(Path::new(".")))?;
        match mkdirat(&parent, name, Mode::from_raw_mode(0o777)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
        // Looked up again from the root: the name may be a link by now.
        self.look_up(below, flags)
    }

    fn look_up(&self, below: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        walk::open(&self.inner.directory, below, flags, self.inner.absolute)
    }
}

/// What to do about directories that are not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Parents {
    Needed,
    Made,
}

/// Files of `/proc` and `/sys` are doors into the kernel and into processes (this server's environment
/// among them), and some block whoever reads them.
fn refuse_the_kernels(opened: impl AsFd, place: &Place) -> Result<(), FileError> {
    let about = fstatfs(opened).map_err(|errno| place.error(errno))?;
    let kind = about.f_type.cast_unsigned();
    if kind == PROC_SUPER_MAGIC.cast_unsigned() || kind == SYSFS_MAGIC {
        return Err(FileError::Kernel(place.path.clone()));
    }
    Ok(())
}

/// What a name in a directory is, not following links. `None` if nothing is there.
pub(super) fn about(parent: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<Option<Stat>> {
    match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// The path by which a descriptor of ours can be opened or linked again.
pub(super) fn by_descriptor(descriptor: impl AsFd) -> String {
    use std::os::fd::AsRawFd as _;
    format!("/proc/self/fd/{}", descriptor.as_fd().as_raw_fd())
}

/// Opens a descriptor of a directory (`O_PATH`) for reading.
pub(super) fn reopened(directory: impl AsFd) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(directory, ".", flags, Mode::empty())
}

/// The kind of a thing, of the two that there are on the wire.
pub(super) fn kind(mode: u32) -> &'static str {
    if FileType::from_raw_mode(mode) == FileType::Directory { "directory" } else { "file" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::CWD;

    fn root() -> (tempfile::TempDir, Root) {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("in")).unwrap();
        std::fs::write(directory.path().join("secret"), "s").unwrap();
        let inside = directory.path().join("in");
        let pending = Pending::open(directory.path()).unwrap();
        let root = Root::open(&inside, &inside, pending).unwrap();
        (directory, root)
    }

    #[test]
    fn no_spelling_of_a_path_leaves_the_root() {
        let (directory, root) = root();
        let inside = directory.path().join("in");
        std::os::unix::fs::symlink("../secret", inside.join("link")).unwrap();
        std::os::unix::fs::symlink(directory.path(), inside.join("up")).unwrap();
        let base = inside.display().to_string();
        for asked in ["../secret", "link", "up/secret", "a/../../secret", "/etc/passwd", "/"] {
            let opened = root.place(asked).and_then(|place| root.file(&place, OFlags::RDONLY));
            assert!(opened.is_err(), "{asked}");
        }
        for asked in
            [format!("{base}/../secret"), format!("{base}//..//secret"), format!("{base}x/y")]
        {
            let opened = root.place(&asked).and_then(|place| root.file(&place, OFlags::RDONLY));
            assert!(matches!(opened, Err(FileError::Outside(_))), "{asked}");
        }
    }

    #[test]
    fn what_is_no_file_is_not_opened_as_one() {
        let (directory, root) = root();
        let fifo = directory.path().join("in/fifo");
        rustix::fs::mknodat(CWD, &fifo, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        for flags in [OFlags::RDONLY, OFlags::WRONLY] {
            let opened = root.file(&root.place("fifo").unwrap(), flags);
            assert!(matches!(opened, Err(FileError::NotAFile(_))), "{opened:?}");
        }
        let pending = Pending::open(directory.path().join("in").as_path()).unwrap();
        let machine = Root::open(Path::new("/"), Path::new("/"), pending).unwrap();
        let opened = machine.file(&machine.place("/proc/self/environ").unwrap(), OFlags::RDONLY);
        assert!(matches!(opened, Err(FileError::Kernel(_))), "{opened:?}");
    }
}
