//! The program as an ordinary user runs it, in cgroups that were delegated to it.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use tempfile::TempDir;
use tokio::process::Command;

/// Neither root nor the user of any service.
pub const USER: u32 = 4711;

/// Where the program is for a user who may not look into the build directory.
///
/// # Panics
///
/// If it is not built.
pub fn program(name: &str) -> PathBuf {
    static DIRECTORY: OnceLock<TempDir> = OnceLock::new();
    let directory = DIRECTORY.get_or_init(|| {
        let directory = tempfile::tempdir().expect("a temporary directory");
        crate::cli::open_to_all(directory.path());
        directory
    });
    let copy = directory.path().join(name);
    if !copy.exists() {
        let fresh = directory.path().join(format!("{name}.{:?}", std::thread::current().id()));
        let source = crate::program().with_file_name(name);
        fs::copy(&source, &fresh).unwrap_or_else(|_| panic!("{} is not built", source.display()));
        fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755)).expect("it is ours");
        fs::rename(&fresh, &copy).expect("it is ours");
    }
    copy
}

/// Whether the tests themselves run as root, and so can become somebody else.
pub fn can_become() -> bool {
    rustix::process::geteuid().is_root()
}

/// Cgroups that belong to the user. Dropping it removes them.
#[derive(Debug)]
pub struct Delegated {
    directories: Vec<PathBuf>,
}

impl Delegated {
    /// Makes one in each hierarchy this process is in.
    ///
    /// # Panics
    ///
    /// If they cannot be made.
    pub fn new() -> Self {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("agentjail-e2e-{}-{number}", std::process::id());
        let groups = fs::read_to_string("/proc/self/cgroup").expect("/proc");
        let mut directories = Vec::new();
        for line in groups.lines() {
            let mut parts = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
            let mount = if controllers.is_empty() { "unified" } else { controllers };
            let own = Path::new("/sys/fs/cgroup").join(mount).join(path.trim_start_matches('/'));
            let directory = own.join(&name);
            if controllers.contains('=') || fs::create_dir(&directory).is_err() {
                continue;
            }
            // The user may make groups below, and move its own processes among them.
            for file in ["", "tasks", "cgroup.procs", "cgroup.subtree_control"] {
                drop(chown(directory.join(file), Some(USER), Some(USER)));
            }
            directories.push(directory);
        }
        Self { directories }
    }

    /// A command of the user's, started in these cgroups.
    pub fn command(&self, program: &Path) -> Command {
        let join: String = self
            .directories
            .iter()
            .map(|directory| format!("echo $$ > {}/cgroup.procs; ", directory.display()))
            .collect();
        let script = format!(
            "{join}exec setpriv --reuid {USER} --regid {USER} --clear-groups --inh-caps=-all \"$0\" \"$@\""
        );
        let mut command = Command::new("sh");
        command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", "/nonexistent");
        command.arg("-c").arg(script).arg(program);
        command
    }
}

impl Default for Delegated {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        for directory in &self.directories {
            // The kernel may need a moment to count the last process out.
            for _ in 0..200 {
                drop(fs::remove_dir(directory.join("agentjail")));
                if fs::remove_dir(directory).is_ok() || !directory.exists() {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        }
    }
}
