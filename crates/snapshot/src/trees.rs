//! Where trees are on disk, and which must stay.

use std::collections::{HashMap, HashSet};
use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ids::TreeId;
use rustix::fs::{AtFlags, FileType, Mode, chmodat, renameat, unlinkat};
use rustix::io::Errno;

use crate::tree;

/// Host user and group that a tree's files belong to; `None` leaves them ours.
pub type Owner = Option<u32>;

/// The names that a tree without a layer below must have.
const HALVES: [&str; 2] = ["workspace", "output"];

/// A directory of trees.
#[derive(Debug)]
pub struct Trees {
    root: PathBuf,
    trash: PathBuf,
    pins: Mutex<HashMap<TreeId, usize>>,
}

/// Keeps a tree from being removed while it lives.
#[derive(Debug)]
pub struct Pin {
    trees: Arc<Trees>,
    id: TreeId,
}

impl Trees {
    /// Takes a directory, made if it is not there, and forgets what a former server was removing.
    pub fn open(root: PathBuf, trash: PathBuf) -> io::Result<Arc<Self>> {
        for directory in [&root, &trash] {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        }
        let trees = Self { root, trash, pins: Mutex::default() };
        trees.empty_trash();
        Ok(Arc::new(trees))
    }

    /// A tree's own directory.
    pub fn directory(&self, id: &TreeId) -> PathBuf {
        self.root.join(id.as_str())
    }

    /// What a jail sees of a tree.
    pub fn files(&self, id: &TreeId) -> PathBuf {
        self.directory(id).join("files")
    }

    /// Where a layer's manifest is.
    pub fn manifest(&self, id: &TreeId) -> PathBuf {
        self.directory(id).join("manifest")
    }

    /// Keeps a tree, whether or not it is there yet.
    pub fn pin(self: &Arc<Self>, id: &TreeId) -> Pin {
        *self.pins().entry(id.clone()).or_default() += 1;
        Pin { trees: Arc::clone(self), id: id.clone() }
    }

    /// Makes a tree to write to, if it is not there. One that stands over nothing gets an empty
    /// `workspace` and `output`.
    pub fn make(&self, id: &TreeId, owner: Owner, over_nothing: bool) -> io::Result<()> {
        let directory = self.directory(id);
        make(&directory, None)?;
        // Last, because it says that the rest is there.
        let files = directory.join("files");
        make(&directory.join("work"), owner)?;
        if files.exists() {
            return Ok(());
        }
        let fresh = directory.join("files.new");
        make(&fresh, owner)?;
        for half in HALVES.iter().filter(|_| over_nothing) {
            make(&fresh.join(half), owner)?;
        }
        fs::rename(fresh, files)
    }

    /// Whether nothing was ever written to a tree.
    pub fn is_empty(&self, id: &TreeId) -> io::Result<bool> {
        match fs::read_dir(self.files(id)) {
            Ok(mut entries) => Ok(entries.next().is_none()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Removes a tree. It is out of sight at once; what is in it goes by and by.
    pub fn remove(&self, id: &TreeId) -> io::Result<()> {
        let aside = self.trash.join(format!("{id}-{}", TreeId::random()));
        match fs::rename(self.directory(id), &aside) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        }
        remove_all(&aside)
    }

    /// Removes every tree that is neither pinned nor known; gives how many.
    ///
    /// `known` is asked after the directory was read and the pins were: a tree that is made
    /// meanwhile is pinned until it is known, and so is one or the other.
    pub fn sweep<E>(
        &self,
        known: impl FnOnce() -> Result<HashSet<TreeId>, E>,
    ) -> Result<io::Result<usize>, E> {
        let present = match self.present() {
            Ok(present) => present,
            Err(error) => return Ok(Err(error)),
        };
        let pinned: HashSet<TreeId> = self.pins().keys().cloned().collect();
        let known = known()?;
        let gone = present.iter().filter(|id| !known.contains(*id) && !pinned.contains(*id));
        let removed = gone.map(|id| self.remove(id)).collect::<io::Result<Vec<()>>>();
        Ok(removed.map(|removed| removed.len()))
    }

    fn present(&self) -> io::Result<Vec<TreeId>> {
        let mut present = Vec::new();
        for entry in fs::read_dir(&self.root)? {
            if let Some(id) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) {
                present.push(id);
            }
        }
        Ok(present)
    }

    fn empty_trash(&self) {
        for entry in fs::read_dir(&self.trash).into_iter().flatten().flatten() {
            if let Err(error) = remove_all(&entry.path()) {
                tracing::warn!(path = %entry.path().display(), %error, "not removed");
            }
        }
    }

    fn pins(&self) -> MutexGuard<'_, HashMap<TreeId, usize>> {
        self.pins.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut pins = self.trees.pins();
        if let Some(count) = pins.get_mut(&self.id) {
            *count -= 1;
            if *count == 0 {
                pins.remove(&self.id);
            }
        }
    }
}

fn make(path: &Path, owner: Owner) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o755).create(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    // The mask of whoever started us is not ours to follow.
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    match owner {
        Some(owner) => chown(path, Some(owner), Some(owner)),
        None => Ok(()),
    }
}

/// Removes a directory that was put into the trash, and all that is in it.
///
/// However deep it is nested: what is not empty is moved up, so that nothing is ever gone down into.
fn remove_all(path: &Path) -> io::Result<()> {
    let top = match tree::open_top(path) {
        Ok(top) => top,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        // A file that has no place here.
        Err(_) => return fs::remove_file(path),
    };
    let mut moved = 0_u64;
    loop {
        let names = tree::names(top.as_fd())?;
        if names.is_empty() {
            return fs::remove_dir(path);
        }
        for name in names {
            if !remove_if_plain(&top, &name)? {
                moved += lift(&top, &name, moved)?;
                unlinkat(&top, &name, AtFlags::REMOVEDIR)?;
            }
        }
    }
}

/// Removes what is no directory, or an empty one; tells whether it was.
fn remove_if_plain(at: &OwnedFd, name: &CStr) -> io::Result<bool> {
    let kind = FileType::from_raw_mode(tree::look(at, name)?.st_mode);
    let flags = if kind == FileType::Directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
    match unlinkat(at, name, flags) {
        Ok(()) => Ok(true),
        Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Empties a directory of the top one: what cannot be removed at once goes to the top, under a name of ours.
fn lift(top: &OwnedFd, name: &CStr, moved: u64) -> io::Result<u64> {
    let directory = entered(top, name)?;
    let mut lifted = 0;
    for child in tree::names(directory.as_fd())? {
        if remove_if_plain(&directory, &child)? {
            continue;
        }
        // An ordinary user must be allowed to write to what it moves.
        drop(entered(&directory, &child)?);
        let free = CString::new(format!("{}-{}", TreeId::random(), moved + lifted))?;
        renameat(&directory, &child, top, &free)?;
        lifted += 1;
    }
    Ok(lifted)
}

/// Opens a directory, also one that its owner has closed to themselves, and so to us if we are no root.
fn entered(at: &OwnedFd, name: &CStr) -> io::Result<OwnedFd> {
    if !rustix::process::geteuid().is_root() {
        // It is in the trash: no jail can put a link in its place any more.
        chmodat(at, name, Mode::RWXU, AtFlags::empty())?;
    }
    tree::open_directory(at, name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trees() -> (tempfile::TempDir, Arc<Trees>) {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let trees = Trees::open(at("trees"), at("trash")).unwrap();
        (directory, trees)
    }

    #[test]
    fn a_sweep_spares_what_is_known_and_what_is_pinned() {
        let (_directory, trees) = trees();
        let [known, pinned, lost] = [(); 3].map(|()| TreeId::random());
        for id in [&known, &pinned, &lost] {
            trees.make(id, None, true).unwrap();
        }
        let pin = trees.pin(&pinned);
        let sweep =
            || trees.sweep(|| Ok::<_, ()>(HashSet::from([known.clone()]))).unwrap().unwrap();
        assert_eq!(sweep(), 1);
        assert!(trees.files(&pinned).is_dir() && !trees.directory(&lost).exists());
        drop(pin);
        assert_eq!(sweep(), 1);
        assert!(trees.files(&known).is_dir() && !trees.directory(&pinned).exists());
    }

    #[test]
    fn a_tree_over_something_is_empty_until_it_is_written_to() {
        let (_directory, trees) = trees();
        let (over, alone) = (TreeId::random(), TreeId::random());
        assert!(trees.is_empty(&over).unwrap(), "not made yet");
        trees.make(&over, None, false).unwrap();
        trees.make(&alone, None, true).unwrap();
        assert!(trees.is_empty(&over).unwrap() && !trees.is_empty(&alone).unwrap());
    }

    #[test]
    fn a_tree_is_removed_however_deep_it_is_nested() {
        let (_directory, trees) = trees();
        let id = TreeId::random();
        trees.make(&id, None, true).unwrap();
        // Deeper than a path can be long, and than one may have descriptors.
        let mut at = tree::open_top(&trees.files(&id).join("workspace")).unwrap();
        for _ in 0..3000 {
            rustix::fs::mkdirat(&at, "nested", Mode::RWXU).unwrap();
            at = tree::open_directory(&at, c"nested").unwrap();
        }
        rustix::fs::mkdirat(&at, "beside", Mode::RWXU).unwrap();
        trees.remove(&id).unwrap();
        assert!(fs::read_dir(&trees.trash).unwrap().next().is_none());
    }

    #[test]
    fn closed_directories_are_removed_all_the_same() {
        let (_directory, trees) = trees();
        let id = TreeId::random();
        trees.make(&id, None, true).unwrap();
        let closed = trees.files(&id).join("workspace/closed");
        fs::create_dir_all(closed.join("in")).unwrap();
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o0)).unwrap();
        trees.remove(&id).unwrap();
        assert!(
            !trees.directory(&id).exists() && fs::read_dir(&trees.trash).unwrap().next().is_none()
        );
    }
}
