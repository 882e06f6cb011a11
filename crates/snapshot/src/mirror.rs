//! Taking a tree that is being written to: copied while its jail runs, then brought up to date while
//! the jail stands still.

use std::collections::{HashMap, HashSet};
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, Stat, XattrFlags, fsetxattr, linkat, mkdirat, mknodat, openat,
    symlinkat, unlinkat,
};

use crate::copy::{self, Method};
use crate::index::{LeftOut, refused};
use crate::tree::{self, Found, OPAQUE};

/// Kernels tell times by their own clock tick: a file that changed this shortly before it was copied may
/// have changed again without showing.
const TICK: Duration = Duration::from_millis(20);

/// Files that may change without showing it, because somebody has them mapped.
#[derive(Debug)]
pub enum Hot<'a> {
    /// The paths of these, from the top of the tree.
    These(&'a HashSet<Vec<u8>>),
    /// It cannot be known: all.
    All,
}

/// A copy in the making.
#[derive(Debug)]
pub struct Mirror {
    from: OwnedFd,
    to: OwnedFd,
    copied: HashMap<Vec<u8>, Copied>,
    directories: Vec<(Vec<u8>, Stat)>,
    /// The first path of each file that has several, in this pass.
    links: HashMap<u64, Vec<u8>>,
    pass: u32,
    done: Mirrored,
}

/// What a pass did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mirrored {
    /// Files copied, those of them by reflink, and their bytes.
    pub files: u64,
    pub reflinked: u64,
    pub bytes: u64,
    pub left_out: LeftOut,
}

/// How something looked just before it was copied.
#[derive(Debug)]
struct Copied {
    status: Stat,
    at: SystemTime,
    pass: u32,
}

impl Mirror {
    /// Between the files of two trees, the second empty.
    pub fn new(from: &Path, to: &Path) -> io::Result<Self> {
        Ok(Self {
            from: tree::open_top(from)?,
            to: tree::open_top(to)?,
            copied: HashMap::new(),
            directories: Vec::new(),
            links: HashMap::new(),
            pass: 0,
            done: Mirrored::default(),
        })
    }

    /// Copies what is new or changed since the last pass, and removes what is gone.
    pub fn pass(&mut self, hot: &Hot<'_>) -> io::Result<Mirrored> {
        self.pass += 1;
        self.links.clear();
        self.directories.clear();
        self.done = Mirrored::default();
        let from = self.from.try_clone()?;
        tree::walk(&from, &mut |found| match self.take(found, hot) {
            Err(error) if tree::is_closed(&error) => {
                self.done.left_out.add(found.path, tree::CLOSED);
                Ok(())
            }
            // Gone, or something else by now: the last pass, when nothing moves, will see.
            Err(error) if tree::vanished(&error) => Ok(()),
            other => other,
        })?;
        self.remove_gone()?;
        self.dress_directories()?;
        Ok(std::mem::take(&mut self.done))
    }

    fn take(&mut self, found: &Found<'_>, hot: &Hot<'_>) -> io::Result<()> {
        let status = found.status;
        let whiteout = tree::is_whiteout(&status);
        if let (Some(why), false) = (refused(status.st_mode), whiteout) {
            self.done.left_out.add(found.path, why);
            return Ok(());
        }
        let kind = FileType::from_raw_mode(status.st_mode);
        let parent = self.parent(found.path)?;
        let name = found.name;
        if kind == FileType::Directory {
            self.directories.push((found.path.to_vec(), status));
            if let Some(why) = found.unread {
                self.done.left_out.add(found.path, why);
            }
        }
        if self.is_current(found, hot) {
            self.remember(found.path, status, None);
            return Ok(());
        }
        let at = SystemTime::now();
        self.make_way(found, kind, &parent)?;
        match kind {
            FileType::Directory => match mkdirat(&parent, name, Mode::from_raw_mode(0o700)) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            },
            FileType::Symlink => {
                let target = CString::new(tree::link_target(found.parent, name)?)?;
                symlinkat(&target, &parent, name)?;
                copy::dress_link(&parent, name, &status)?;
            }
            FileType::RegularFile => self.file(found, &parent)?,
            _ => {
                let whiteout = Mode::from_raw_mode(0);
                mknodat(&parent, name, FileType::CharacterDevice, whiteout, 0)?;
            }
        }
        self.remember(found.path, status, Some(at));
        Ok(())
    }

    /// Whether the copy is as good as the original.
    fn is_current(&self, found: &Found<'_>, hot: &Hot<'_>) -> bool {
        let Some(copied) = self.copied.get(found.path) else { return false };
        let (old, new) = (&copied.status, &found.status);
        let same = old.st_ino == new.st_ino
            && old.st_mode == new.st_mode
            && old.st_uid == new.st_uid
            && old.st_size == new.st_size
            && old.st_nlink == new.st_nlink
            && (old.st_mtime, old.st_mtime_nsec) == (new.st_mtime, new.st_mtime_nsec)
            && (old.st_ctime, old.st_ctime_nsec) == (new.st_ctime, new.st_ctime_nsec);
        if FileType::from_raw_mode(new.st_mode) != FileType::RegularFile {
            // A directory is dressed anew in every pass.
            return same
                || FileType::from_raw_mode(new.st_mode) == FileType::Directory
                    && FileType::from_raw_mode(old.st_mode) == FileType::Directory;
        }
        let is_hot = match hot {
            Hot::All => true,
            Hot::These(paths) => paths.contains(found.path),
        };
        let changed = SystemTime::UNIX_EPOCH
            + Duration::new(
                u64::try_from(new.st_ctime).unwrap_or_default(),
                u32::try_from(new.st_ctime_nsec).unwrap_or_default(),
            );
        // Several names of one file are linked anew: the first may have been copied.
        same && !is_hot && new.st_nlink == 1 && changed + TICK < copied.at
    }

    fn remember(&mut self, path: &[u8], status: Stat, at: Option<SystemTime>) {
        let pass = self.pass;
        match (self.copied.get_mut(path), at) {
            (Some(copied), None) => copied.pass = pass,
            (_, at) => {
                let at = at.unwrap_or(SystemTime::UNIX_EPOCH);
                self.copied.insert(path.to_vec(), Copied { status, at, pass });
            }
        }
    }

    /// Removes what an earlier pass put where something else is to be.
    fn make_way(&mut self, found: &Found<'_>, kind: FileType, parent: &OwnedFd) -> io::Result<()> {
        let Some(copied) = self.copied.get(found.path) else { return Ok(()) };
        let before = FileType::from_raw_mode(copied.status.st_mode);
        match (before, kind) {
            (FileType::Directory, FileType::Directory) => Ok(()),
            (FileType::Directory, _) => {
                let below: Vec<_> = self
                    .copied
                    .keys()
                    .filter(|path| crate::order::is_below(path, found.path))
                    .cloned()
                    .collect();
                for path in &below {
                    self.copied.remove(path);
                }
                remove_tree(parent, found.name)
            }
            _ => Ok(unlinkat(parent, found.name, AtFlags::empty())?),
        }
    }

    fn file(&mut self, found: &Found<'_>, parent: &OwnedFd) -> io::Result<()> {
        let status = &found.status;
        if status.st_nlink > 1 {
            if let Some(first) = self.links.get(&status.st_ino) {
                let (at, first) = tree::parent_of(&self.to, first)?;
                return Ok(linkat(&at, &first, parent, found.name, AtFlags::empty())?);
            }
            self.links.insert(status.st_ino, found.path.to_vec());
        }
        let source = tree::open_file(found.parent, found.name)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let target = File::from(openat(parent, found.name, flags, Mode::from_raw_mode(0o600))?);
        let method = copy::content(&source, &target)?;
        copy::dress(&target, status, &tree::attributes(&source)?)?;
        if status.st_mode & 0o6000 != 0 {
            self.done.left_out.add(found.path, "a set-id bit");
        }
        self.done.files += 1;
        self.done.reflinked += u64::from(method == Method::Reflink);
        self.done.bytes += status.st_size.cast_unsigned();
        Ok(())
    }

    /// What was copied before, and is not there any more.
    fn remove_gone(&mut self) -> io::Result<()> {
        let mut gone: Vec<_> = self
            .copied
            .iter()
            .filter(|(_, copied)| copied.pass != self.pass)
            .map(|(path, copied)| (path.clone(), copied.status.st_mode))
            .collect();
        // What is below a directory before it.
        gone.sort_by(|a, b| crate::order::compare(&b.0, &a.0));
        for (path, mode) in gone {
            let parent = self.parent(&path)?;
            let flags = match FileType::from_raw_mode(mode) {
                FileType::Directory => AtFlags::REMOVEDIR,
                _ => AtFlags::empty(),
            };
            match unlinkat(&parent, last_name(&path)?.as_c_str(), flags) {
                Ok(()) | Err(rustix::io::Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
            self.copied.remove(&path);
        }
        Ok(())
    }

    /// Last, and from the bottom up: what is put into a directory changes its time.
    fn dress_directories(&mut self) -> io::Result<()> {
        for (path, status) in std::mem::take(&mut self.directories).iter().rev() {
            let copy = match tree::directory_beneath(&self.to, path) {
                Ok(copy) => copy,
                // Something else by now: the last pass, when nothing moves, will see.
                Err(error) if tree::vanished(&error) => continue,
                Err(error) => return Err(error),
            };
            let original = match tree::directory_beneath(&self.from, path) {
                Ok(original) => original,
                Err(error) if tree::vanished(&error) => continue,
                Err(error) if tree::is_closed(&error) => {
                    copy::dress(&copy, status, &[])?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            if tree::is_opaque(&original) {
                fsetxattr(&copy, OPAQUE, b"y", XattrFlags::empty())?;
            }
            copy::dress(&copy, status, &tree::attributes(&original)?)?;
        }
        copy::dress(&self.to, &rustix::fs::fstat(&self.from)?, &[])?;
        Ok(())
    }

    /// The directory in the copy that a path's last name is in. No link is followed: those of the
    /// original are in the copy, too.
    fn parent(&self, path: &[u8]) -> io::Result<OwnedFd> {
        tree::parent_of(&self.to, path).map(|(parent, _)| parent)
    }
}

fn last_name(path: &[u8]) -> io::Result<CString> {
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
    Ok(CString::new(name)?)
}

fn remove_tree(parent: &OwnedFd, name: &CStr) -> io::Result<()> {
    let directory = tree::open_directory(parent, name)?;
    for child in tree::names(directory.as_fd())? {
        let status = tree::look(&directory, &child)?;
        if FileType::from_raw_mode(status.st_mode) == FileType::Directory {
            remove_tree(&directory, &child)?;
        } else {
            unlinkat(&directory, &child, AtFlags::empty())?;
        }
    }
    Ok(unlinkat(parent, name, AtFlags::REMOVEDIR)?)
}
