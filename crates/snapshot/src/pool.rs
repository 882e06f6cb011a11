//! The pool: each content of a tenant once, by its hash.
//!
//! An object is another name of a file in a layer, which nobody writes to; where that cannot be (the pool is
//! on another file system), a copy. Nothing is ever read from here into a tree that is written to by its
//! name: an overlay copies before it changes.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::PathBuf;

use ids::TreeId;
use rustix::fs::{AtFlags, CWD, linkat};
use rustix::io::Errno;

use crate::copy;

/// The objects of one tenant: whether another has some content cannot be asked.
#[derive(Debug, Clone)]
pub struct Pool {
    root: PathBuf,
}

impl Pool {
    /// Of a directory of its own.
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// Keeps the content of an open file of a layer.
    pub(crate) fn add(
        &self,
        at: impl AsFd,
        name: &std::ffi::CStr,
        file: &File,
        hash: &[u8; 32],
    ) -> io::Result<()> {
        let object = self.path(hash);
        for attempt in 0..2 {
            match linkat(at.as_fd(), name, CWD, &object, AtFlags::empty()) {
                Ok(()) | Err(Errno::EXIST) => return Ok(()),
                Err(Errno::NOENT) if attempt == 0 => {
                    let shard = object.parent().unwrap_or(&self.root);
                    fs::DirBuilder::new().recursive(true).mode(0o700).create(shard)?;
                }
                // Another file system, or as many names as a file can have; without root, a file that is
                // not quite ours.
                Err(Errno::XDEV | Errno::MLINK | Errno::PERM) => break,
                Err(error) => return Err(error.into()),
            }
        }
        let fresh = self.root.join(format!("{}.new", TreeId::random()));
        let target = File::options().create_new(true).write(true).mode(0o600).open(&fresh)?;
        copy::content(file, &target)?;
        fs::rename(fresh, object)
    }

    /// Removes objects that no manifest names; gives how many. Nobody may add meanwhile.
    pub fn sweep(&self, kept: &HashSet<[u8; 32]>) -> io::Result<usize> {
        let mut removed = 0;
        let shards = match fs::read_dir(&self.root) {
            Ok(shards) => shards,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(error),
        };
        for shard in shards {
            let shard = shard?;
            if !shard.file_type()?.is_dir() {
                // Half an object of a server that was killed.
                fs::remove_file(shard.path())?;
                continue;
            }
            for object in fs::read_dir(shard.path())? {
                let object = object?;
                let hash = object.file_name().to_str().and_then(unhex);
                if hash.is_none_or(|hash| !kept.contains(&hash)) {
                    fs::remove_file(object.path())?;
                    removed += 1;
                }
            }
        }
        Ok(removed)
    }

    /// Whether a content is kept.
    pub fn has(&self, hash: &[u8; 32]) -> bool {
        self.path(hash).exists()
    }

    fn path(&self, hash: &[u8; 32]) -> PathBuf {
        let hex = blake3::Hash::from_bytes(*hash).to_hex();
        self.root.join(&hex[..2]).join(hex.as_str())
    }
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    blake3::Hash::from_hex(text).ok().map(|hash| *hash.as_bytes())
}
