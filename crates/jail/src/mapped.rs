//! Which files the processes of a group have mapped to write to, and which they keep that have no name.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Paths as the processes see them. Init, which maps nothing of the jail's, is left out: it may not be
/// looked into. `None` if some process may not, either.
pub(crate) fn files(group: &Path, init: u32) -> Option<HashSet<Vec<u8>>> {
    let processes = fs::read_to_string(group.join("cgroup.procs")).ok()?;
    let mut found = HashSet::new();
    for pid in processes.lines().filter(|pid| *pid != init.to_string()) {
        match fs::read(format!("/proc/{pid}/maps")) {
            Ok(maps) => found.extend(maps.split(|byte| *byte == b'\n').filter_map(shared)),
            // It has ended meanwhile.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound) => {}
            Err(error) if error.raw_os_error() == Some(3) => {}
            Err(_) => return None,
        }
    }
    Some(found)
}

/// Descriptors and mappings that are looked at, at most: each costs a call.
const MOST_LOOKS: usize = 16 * 1024;

/// Bytes on disk of files that have no name any more, and are there because a process has them open or mapped.
pub(crate) fn nameless_bytes(group: &Path, init: u32) -> u64 {
    let processes = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    let mut found = HashMap::new();
    let links = processes
        .lines()
        .filter(|pid| *pid != init.to_string())
        .flat_map(|pid| ["fd", "map_files"].map(|kind| format!("/proc/{pid}/{kind}")))
        .filter_map(|directory| fs::read_dir(directory).ok())
        .flat_map(Iterator::flatten);
    for link in links.take(MOST_LOOKS) {
        // Through the link, to the file itself.
        let Ok(status) = fs::metadata(link.path()) else { continue };
        if status.is_file() && status.nlink() == 0 {
            found.insert((status.dev(), status.ino()), status.blocks() * 512);
        }
    }
    found.values().sum()
}

/// The path of a line of `maps`, if what it tells of is shared and writable.
fn shared(line: &[u8]) -> Option<Vec<u8>> {
    let mut fields = line.splitn(6, |byte| *byte == b' ');
    let permissions = fields.nth(1)?;
    if permissions.get(1) != Some(&b'w') || permissions.get(3) != Some(&b's') {
        return None;
    }
    let path = fields.nth(3)?.trim_ascii_start();
    path.starts_with(b"/").then(|| path.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_shared_writable_files_count() {
        let line =
            |text: &str| shared(text.as_bytes()).map(|path| String::from_utf8(path).unwrap());
        let at = "7f0000000000-7f0000008000";
        assert_eq!(
            line(&format!(
                "{at} rw-s 00000000 00:31 77                         /workspace/a b.db-shm"
            )),
            Some("/workspace/a b.db-shm".to_owned())
        );
        for other in [
            "r--s 00000000 00:31 77 /workspace/a",
            "rw-p 00000000 00:31 77 /workspace/a",
            "rw-s 00000000 00:01 5",
        ] {
            assert_eq!(line(&format!("{at} {other}")), None, "{other}");
        }
    }
}
