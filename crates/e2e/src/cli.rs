//! `agentjail run`, as a user types it.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Stdio;

use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::user::{Delegated, program};

/// What a command in a jail said and how it ended.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// A command line that begins with `agentjail run`.
#[derive(Debug)]
pub struct Run {
    command: Command,
    input: Vec<u8>,
}

impl Run {
    /// `agentjail run FLAGS`
    pub fn new(flags: &[&str]) -> Self {
        let mut command = Command::new(crate::program());
        command.env_clear().env("PATH", "/usr/bin:/bin").arg("run").args(flags).kill_on_drop(true);
        Self { command, input: Vec::new() }
    }

    /// The same, as an ordinary user types it.
    pub fn of_user(delegated: &Delegated, flags: &[&str]) -> Self {
        let mut command = delegated.command(&program("agentjail"));
        command.arg("run").args(flags).kill_on_drop(true);
        Self { command, input: Vec::new() }
    }

    /// Leaves a protection out, in the build for tests.
    ///
    /// # Panics
    ///
    /// If it is not built.
    pub fn without(protection: &str, flags: &[&str]) -> Self {
        let mut command = Command::new(crate::mutations());
        command.env_clear().env("PATH", "/usr/bin:/bin").env("AGENTJAIL_WITHOUT", protection);
        command.arg("run").args(flags).kill_on_drop(true);
        Self { command, input: Vec::new() }
    }

    /// The same, as an ordinary user types it.
    pub fn of_user_without(delegated: &Delegated, protection: &str, flags: &[&str]) -> Self {
        let mut command = delegated.command(&program("agentjail-mutations"));
        command.env("AGENTJAIL_WITHOUT", protection).arg("run").args(flags).kill_on_drop(true);
        Self { command, input: Vec::new() }
    }

    /// What the command reads.
    #[must_use]
    pub fn input(mut self, input: &[u8]) -> Self {
        self.input = input.to_vec();
        self
    }

    /// Runs a command to its end.
    ///
    /// # Panics
    ///
    /// If the program cannot be started.
    pub async fn command(mut self, words: &[impl AsRef<OsStr>]) -> Said {
        self.command.arg("--").args(words);
        self.command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.command.spawn().expect("the program starts");
        let mut stdin = child.stdin.take().expect("its input is a pipe");
        let feed = async move {
            // The command may end before it has read everything.
            drop(stdin.write_all(&self.input).await);
        };
        let (output, ()) = tokio::join!(child.wait_with_output(), feed);
        let output = output.expect("its output can be read");
        Said {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Runs a shell script.
    pub async fn sh(self, script: &str) -> Said {
        self.command(&["sh", "-c", script]).await
    }

    /// Runs a Python script.
    pub async fn python(self, script: &str) -> Said {
        self.command(&["python3", "-c", script]).await
    }
}

/// Compiles a C program for a jail to run; gives the directory it is in, as `attack`.
///
/// # Panics
///
/// If there is no C compiler, or the program is wrong.
pub async fn compiled(source: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory");
    open_to_all(directory.path());
    let file = directory.path().join("attack.c");
    std::fs::write(&file, source).expect("the source is written");
    let status = Command::new("cc")
        .args(["-O1", "-w", "-o"])
        .arg(directory.path().join("attack"))
        .arg(&file)
        .args(["-pthread"])
        .status()
        .await
        .expect("there is a C compiler");
    assert!(status.success(), "the attack compiles");
    directory
}

/// Lets the jail's user read a directory of root's.
///
/// # Panics
///
/// If the mode cannot be set.
pub fn open_to_all(directory: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o755))
        .expect("the directory is ours");
}
