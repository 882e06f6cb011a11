//! The state directory: the database, the master key, flavors.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use secret::{MASTER_KEY_BYTES, Secret, Vault};

/// What the names of flavors and images begin with that are being made, by whoever holds a lock on the
/// directory they are in.
pub const IN_THE_MAKING: &str = ".new-";

/// What the names of flavors and images begin with that are to go when no jail can have them any more.
pub const PUT_AWAY: &str = ".old-";

/// A directory that only its owner can look into.
#[derive(Debug, Clone)]
pub struct StateDir {
    path: PathBuf,
}

/// Why the state could not be had.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("could not use {path} as the state directory")]
    Directory { path: PathBuf, source: io::Error },
    #[error("could not read or write {path}")]
    File { path: PathBuf, source: io::Error },
    #[error("{path} can be read by others: it must have mode 0600")]
    TooOpen { path: PathBuf },
    #[error("{path} is not a master key: it must hold {MASTER_KEY_BYTES} bytes in hex")]
    NotAKey { path: PathBuf },
    #[error("another server uses {path}")]
    InUse { path: PathBuf },
}

/// Held for as long as a server uses a state directory.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "the lock is held by keeping the file open")] File);

impl StateDir {
    /// Makes the directory if it is not there.
    pub fn open(path: PathBuf) -> Result<Self, StateError> {
        let fail = |source| StateError::Directory { path: path.clone(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(fail)?;
        let path = path.canonicalize().map_err(fail)?;
        Ok(Self { path })
    }

    /// Makes sure that no other server uses it.
    pub fn lock(&self) -> Result<Lock, StateError> {
        let path = self.path.join("lock");
        let file = File::options().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let file = file.map_err(|source| StateError::File { path: path.clone(), source })?;
        match file.try_lock() {
            Ok(()) => Ok(Lock(file)),
            Err(fs::TryLockError::WouldBlock) => Err(StateError::InUse { path: self.path.clone() }),
            Err(fs::TryLockError::Error(source)) => Err(StateError::File { path, source }),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn database(&self) -> PathBuf {
        self.path.join("agentjail.db")
    }

    /// Where trees of workspaces are, and where they go to be removed.
    pub fn trees(&self) -> [PathBuf; 2] {
        [self.path.join("trees"), self.path.join("trash")]
    }

    /// Contents by their hash, unless configured elsewhere.
    pub fn objects(&self) -> PathBuf {
        self.path.join("objects")
    }

    pub fn flavors(&self) -> PathBuf {
        self.path.join("flavors")
    }

    /// This program, where jails can be given it.
    pub fn program(&self) -> PathBuf {
        self.path.join("program")
    }

    /// Root file systems.
    pub fn images(&self) -> PathBuf {
        self.path.join("images")
    }

    /// Removes flavors and images that were put away while a former server's jails could have them mounted,
    /// and what is left of one whose making was broken off.
    pub fn tidy_shelves(&self) {
        for directory in [self.flavors(), self.images()] {
            remove_beginning(&directory, PUT_AWAY);
            // Whoever makes one holds the directory.
            if File::open(&directory).is_ok_and(|held| held.try_lock().is_ok()) {
                remove_beginning(&directory, IN_THE_MAKING);
            }
        }
    }

    /// The vault under this directory's master key, which is made at first use.
    pub fn vault(&self) -> Result<Vault, StateError> {
        let path = self.path.join("master.key");
        let text = secret_file(&path, || hex(Vault::random_master_key().as_ref()))?;
        let key = unhex(text.expose()).ok_or(StateError::NotAKey { path })?;
        Ok(Vault::new(&key.into()))
    }

    /// The API key made at first start for a server that was given none, and whether that was now.
    pub fn admin_key(&self) -> Result<(Secret, FirstStart), StateError> {
        let path = self.path.join("admin.key");
        let first = if path.exists() { FirstStart::No } else { FirstStart::Yes };
        let make = || format!("aj_{}", hex(&Vault::random_master_key()[..24]));
        Ok((secret_file(&path, make)?, first))
    }
}

/// Removes the directories in one whose names begin with something of ours.
pub fn remove_beginning(directory: &Path, with: &str) {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    for entry in entries {
        if !entry.file_name().to_str().is_some_and(|name| name.starts_with(with)) {
            continue;
        }
        if let Err(error) = fs::remove_dir_all(entry.path()) {
            tracing::warn!(path = %entry.path().display(), %error, "not removed");
        }
    }
}

/// Reads a file of mode 0600, or makes it. Written beside and renamed: a crash in between leaves
/// no half of a key.
fn secret_file(path: &Path, make: impl Fn() -> String) -> Result<Secret, StateError> {
    let fail = |source| StateError::File { path: path.to_owned(), source };
    let mut text = String::new();
    match File::open(path) {
        Ok(mut file) => {
            if file.metadata().map_err(fail)?.permissions().mode() & 0o077 != 0 {
                return Err(StateError::TooOpen { path: path.to_owned() });
            }
            file.read_to_string(&mut text).map_err(fail)?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            text = make();
            let fresh = path.with_extension("new");
            let mut file = File::options()
                .create(true)
                .write(true)
                .truncate(true)
                .mode(0o600)
                .open(&fresh)
                .map_err(fail)?;
            file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(fail)?;
            fs::rename(&fresh, path).map_err(fail)?;
        }
        Err(error) => return Err(fail(error)),
    }
    Ok(Secret::new(text.trim().to_owned()))
}

/// Whether a key was made just now, and so has not been shown yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirstStart {
    Yes,
    No,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<[u8; MASTER_KEY_BYTES]> {
    let mut bytes = [0; MASTER_KEY_BYTES];
    if text.len() != 2 * MASTER_KEY_BYTES || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    for (n, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * n..2 * n + 2], 16).ok()?;
    }
    Some(bytes)
}
