//! What a jail or a server may have left behind on the machine.

use std::fs;
use std::path::{Path, PathBuf};

/// Processes whose command line holds `needle`, other than this one.
pub fn processes(needle: &str) -> Vec<String> {
    let own = std::process::id().to_string();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry.file_name().to_string_lossy().into_owned();
        if pid == own || !pid.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(needle) {
            found.push(format!("{pid} {line}"));
        }
    }
    found
}

/// Processes that descend from one, elder ones first.
pub fn descendants(of: u32) -> Vec<u32> {
    let mut family = vec![of];
    let mut next = 0;
    while let Some(parent) = family.get(next).copied() {
        next += 1;
        let tasks = fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten();
        for task in tasks {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            family.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        }
    }
    family.remove(0);
    family
}

/// Cgroups of the server with this pid.
pub fn cgroups(server: u32) -> Vec<PathBuf> {
    let mut found = Vec::new();
    walk(Path::new("/sys/fs/cgroup"), 6, &mut |path| {
        let instance = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let parent = path.parent().and_then(Path::file_name).unwrap_or_default();
        if parent == "agentjail" && instance.split('-').nth(1) == Some(&server.to_string()) {
            found.push(path.to_owned());
        }
    });
    found
}

/// Cgroups of jails below the instances of this name.
pub fn groups(name: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    walk(Path::new("/sys/fs/cgroup"), 7, &mut |path| {
        let parent = path.parent().and_then(Path::file_name).unwrap_or_default();
        if parent == name {
            found.push(path.to_owned());
        }
    });
    found
}

/// Mounts of this mount namespace that look like ours.
pub fn mounts() -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table
        .lines()
        .filter(|line| line.contains("/jail") || line.contains("/opt/flavors"))
        .map(str::to_owned)
        .collect()
}

fn walk(directory: &Path, depth: usize, see: &mut impl FnMut(&Path)) {
    if depth == 0 {
        return;
    }
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            see(&entry.path());
            walk(&entry.path(), depth - 1, see);
        }
    }
}
