//! Names that a file has for a moment, between being written and taking its place.
//!
//! Each is noted before it is made, in a file that outlives this process. Whoever finds the note after the
//! process has died removes what it names: the keeper at once, or else the next server.

use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// The longest path that is noted.
const LONGEST: usize = 4094;

/// Bytes of a note: its length, and the path.
const SLOT: usize = LONGEST + 2;

/// Notes at once. Who finds none free makes its name without one.
const SLOTS: u32 = 512;

/// Beginning of the names of files with notes.
const PREFIX: &str = "pending-";

/// End of the names that are noted; nothing else is removed.
pub(super) const SUFFIX: &str = ".partial";

/// The notes of this process.
#[derive(Debug, Clone)]
pub(crate) struct Pending {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Locked as long as this process lives.
    file: File,
    path: PathBuf,
    free: Mutex<Vec<u32>>,
}

/// A note. It is crossed out when this is dropped.
#[derive(Debug)]
pub(super) struct Note {
    inner: Arc<Inner>,
    slot: u32,
}

impl Pending {
    /// Begins to take notes, after what processes that have died noted was removed.
    pub(crate) fn open(directory: &Path) -> io::Result<Self> {
        sweep(directory);
        let path = directory.join(format!("{PREFIX}{}", std::process::id()));
        let mut options = File::options();
        let file = options.create(true).truncate(false).read(true).write(true).open(&path)?;
        file.lock()?;
        let free = Mutex::new((0..SLOTS).rev().collect());
        Ok(Self { inner: Arc::new(Inner { file, path, free }) })
    }

    /// Notes a path.
    pub(super) fn note(&self, path: &Path) -> Option<Note> {
        let bytes = path.as_os_str().as_bytes();
        if bytes.len() > LONGEST {
            return None;
        }
        let slot = self.inner.free().pop()?;
        let note = Note { inner: Arc::clone(&self.inner), slot };
        let mut text = u16::try_from(bytes.len()).unwrap_or_default().to_le_bytes().to_vec();
        text.extend_from_slice(bytes);
        // A full disk: there will be no note, as there would be none for a path that is too long.
        self.inner.file.write_all_at(&text, note.position()).ok()?;
        Some(note)
    }
}

impl Inner {
    fn free(&self) -> std::sync::MutexGuard<'_, Vec<u32>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Note {
    fn position(&self) -> u64 {
        u64::from(self.slot) * SLOT as u64
    }
}

impl Drop for Note {
    fn drop(&mut self) {
        // If that fails, the name is looked for once more than it need be.
        drop(self.inner.file.write_all_at(&[0, 0], self.position()));
        self.inner.free().push(self.slot);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.path));
    }
}

/// Removes what processes that have died noted in a directory.
pub fn sweep(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if !entry.file_name().as_bytes().starts_with(PREFIX.as_bytes()) {
            continue;
        }
        // One that is locked is still being written.
        let Ok(file) = File::options().read(true).write(true).open(entry.path()) else { continue };
        if file.try_lock().is_err() {
            continue;
        }
        for slot in 0..SLOTS {
            if let Some(path) = read(&file, slot)
                && fs::remove_file(&path).is_err()
            {
                // A directory that was being moved to another file system.
                drop(fs::remove_dir_all(path));
            }
        }
        drop(fs::remove_file(entry.path()));
    }
}

fn read(file: &File, slot: u32) -> Option<PathBuf> {
    let mut bytes = vec![0; SLOT];
    let at = u64::from(slot) * SLOT as u64;
    let mut length = 0;
    while let Ok(count @ 1..) = file.read_at(&mut bytes[length..], at + length as u64) {
        length += count;
    }
    let wanted = usize::from(u16::from_le_bytes([bytes[0], bytes[1]]));
    if wanted == 0 || wanted + 2 > length {
        return None;
    }
    let path = bytes[2..2 + wanted].to_vec();
    path.ends_with(SUFFIX.as_bytes()).then(|| PathBuf::from(std::ffi::OsString::from_vec(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_dead_process_noted_is_removed_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for name in ["a.partial", "b.partial", "c"] {
            fs::write(at(name), "x").unwrap();
        }
        let pending = Pending::open(directory.path()).unwrap();
        let _a = pending.note(&at("a.partial")).unwrap();
        drop(pending.note(&at("b.partial")).unwrap());
        let _c = pending.note(&at("c")).unwrap();
        // Alive: nothing is touched.
        sweep(directory.path());
        assert!(at("a.partial").exists());
        let notes = fs::read(&pending.inner.path).unwrap();
        fs::write(at("pending-0"), notes).unwrap();
        sweep(directory.path());
        assert!(!at("a.partial").exists() && at("b.partial").exists() && at("c").exists());
        assert!(!at("pending-0").exists() && pending.inner.path.exists());
    }
}
