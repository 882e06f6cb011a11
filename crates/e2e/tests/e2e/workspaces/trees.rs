//! Trees on file systems of other kinds.

use std::path::Path;
use std::process::Stdio;

use snapshot::{Hot, Mirror};
use tempfile::TempDir;
use tokio::process::Command;

/// A file system in a file, mounted for as long as this lives.
struct Mounted {
    directory: TempDir,
}

impl Mounted {
    async fn new(kind: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (image, at) = (directory.path().join("image"), directory.path().join("at"));
        std::fs::create_dir(&at).unwrap();
        let file = std::fs::File::create(&image).unwrap();
        file.set_len(400 << 20).unwrap();
        let make = format!("mkfs.{kind}");
        run(&make, &[image.as_path()]).await;
        run("mount", &[Path::new("-o"), Path::new("loop"), &image, &at]).await;
        Self { directory }
    }

    fn at(&self) -> std::path::PathBuf {
        self.directory.path().join("at")
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let done = rustix::mount::unmount(self.at(), rustix::mount::UnmountFlags::DETACH);
        assert!(done.is_ok() || std::thread::panicking(), "{done:?}");
    }
}

async fn run(program: &str, arguments: &[&Path]) {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().await;
    let output =
        output.unwrap_or_else(|_| panic!("{program} is not installed: see `cargo xtask test`"));
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn where_the_file_system_shares_blocks_a_copy_does() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    for (kind, shares) in [("btrfs", true), ("xfs", true), ("ext4", false)] {
        let mounted = Mounted::new(kind).await;
        let (from, to) = (mounted.at().join("from"), mounted.at().join("to"));
        std::fs::create_dir(&from).unwrap();
        std::fs::create_dir(&to).unwrap();
        let content: Vec<u8> = (0..8_u32 << 18).flat_map(u32::to_le_bytes).collect();
        std::fs::write(from.join("big"), &content).unwrap();
        std::fs::write(from.join("small"), "x").unwrap();
        let done = Mirror::new(&from, &to).unwrap().pass(&Hot::All).unwrap();
        assert_eq!((done.files, done.reflinked > 0), (2, shares), "{kind}");
        // A change of one is not a change of the other.
        std::fs::OpenOptions::new()
            .append(true)
            .open(from.join("big"))
            .and_then(|mut file| std::io::Write::write_all(&mut file, b"more"))
            .unwrap();
        assert!(std::fs::read(to.join("big")).unwrap() == content, "{kind}");
    }
}
