//! The sandbox agent's program, where jails can be given it: this program itself.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tokio::sync::OnceCell;

/// The name of its directory in a jail. No flavor can have it.
const NAME: &str = ".agentjail";

/// A copy of this program, made at its first use: one that is replaced while the server runs is not what runs.
#[derive(Debug)]
pub(crate) struct Program {
    directory: PathBuf,
    made: OnceCell<()>,
}

impl Program {
    pub(crate) fn new(directory: PathBuf) -> Self {
        Self { directory, made: OnceCell::new() }
    }

    /// What is put into a jail, and the program's path in there.
    pub(super) async fn brought(&self) -> io::Result<((String, PathBuf), String)> {
        let directory = self.directory.clone();
        let made = self.made.get_or_try_init(|| async {
            tokio::task::spawn_blocking(move || make(&directory)).await.map_err(io::Error::other)?
        });
        made.await?;
        let path = format!("/opt/flavors/{NAME}/agentjail");
        Ok(((NAME.to_owned(), self.directory.clone()), path))
    }
}

fn make(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755))?;
    let fresh = directory.join(".new");
    fs::copy("/proc/self/exe", &fresh)?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755))?;
    // Jails of a former server, if any were left, keep theirs.
    fs::rename(&fresh, directory.join("agentjail"))
}
