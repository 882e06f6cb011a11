//! Attempts on files, devices and mounts.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use super::Verdict;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Read,
    Write,
}

pub(super) fn none_opens(paths: &[&str], way: Way) -> Verdict {
    for path in paths {
        let opened = match way {
            Way::Write => File::options().write(true).open(path).is_ok(),
            Way::Read => {
                fs::read_dir(path).is_ok()
                    || File::open(path).is_ok_and(|mut file| file.read(&mut [0; 1]).is_ok())
            }
        };
        if opened {
            return Verdict::Broken(format!("{path} could be opened"));
        }
    }
    Verdict::Holds(format!("refused: {}", paths.join(", ")))
}

pub(super) fn machines_knobs() -> Verdict {
    for path in [
        "kcore",
        "keys",
        "timer_list",
        "sched_debug",
        "kallsyms",
        "config.gz",
        "iomem",
        "partitions",
        "key-users",
    ] {
        let mut text = Vec::new();
        let path = format!("/proc/{path}");
        if File::open(&path).is_ok_and(|file| file.take(64).read_to_end(&mut text).is_ok())
            && !text.is_empty()
        {
            return Verdict::Broken(format!("{path} can be read"));
        }
    }
    for path in ["/proc/acpi", "/proc/bus", "/proc/irq", "/proc/scsi"] {
        if fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some()) {
            return Verdict::Broken(format!("{path} can be listed"));
        }
    }
    for path in [
        "/proc/sysrq-trigger",
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/fs/binfmt_misc/register",
        "/proc/sys/vm/drop_caches",
    ] {
        // /proc/sysrq-trigger shows as /dev/null, which takes anything: what counts is where it goes.
        let covered = fs::metadata(path).is_ok_and(|found| found.file_type().is_char_device());
        if !covered && File::options().write(true).open(path).is_ok() {
            return Verdict::Broken(format!("{path} can be written"));
        }
    }
    Verdict::Holds("what tells of the machine is covered, what acts on it is closed".to_owned())
}

pub(super) fn replaced_devices() -> Verdict {
    for path in ["/dev/null", "/dev/pts", "/dev", "/dev/tty", "/proc", "/etc/passwd"] {
        if fs::remove_file(path).is_ok() || fs::rename(path, "/tmp/moved").is_ok() {
            return Verdict::Broken(format!("{path} was moved away"));
        }
    }
    if symlink("/etc", "/dev/link").is_ok() {
        return Verdict::Broken("a link in /dev".to_owned());
    }
    Verdict::Holds("/dev and its entries cannot be moved, removed or added to".to_owned())
}

/// The workspace holds links named like our mount points; none may have led a mount away.
pub(super) fn redirected_mounts() -> Verdict {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let wanted = ["/proc", "/tmp", "/dev/shm", "/dev/pts", "/workspace", "/output", "/home/agent"];
    for point in wanted {
        let there = mounts.lines().any(|line| line.split(' ').nth(4) == Some(point));
        if !there {
            return Verdict::Broken(format!("nothing is mounted at {point}"));
        }
    }
    let inside = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    match inside.into_iter().find(|point| point.starts_with("/workspace/")) {
        Some(point) => Verdict::Broken(format!("a mount landed at {point}")),
        None => Verdict::Holds("every mount is where it was meant to be".to_owned()),
    }
}

pub(super) fn maps_and_attributes() -> Verdict {
    for (path, text) in [
        ("/proc/self/uid_map", "0 0 1"),
        ("/proc/self/gid_map", "0 0 1"),
        ("/proc/self/setgroups", "allow"),
        ("/proc/self/attr/exec", "unconfined"),
        ("/proc/self/oom_score_adj", "-1000"),
        ("/proc/sys/user/max_user_namespaces", "100"),
        ("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0"),
    ] {
        let written = File::options()
            .write(true)
            .open(path)
            .and_then(|mut file| file.write_all(text.as_bytes()));
        if written.is_ok() {
            return Verdict::Broken(format!("{path} took {text:?}"));
        }
    }
    Verdict::Holds("none takes a word".to_owned())
}

pub(super) fn devices() -> Verdict {
    const KNOWN: [&str; 13] = [
        "null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "shm", "fd", "stdin",
        "stdout", "stderr",
    ];
    for entry in fs::read_dir("/dev").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !KNOWN.contains(&name.as_str()) {
            return Verdict::Broken(format!("/dev/{name}"));
        }
    }
    for directory in ["/tmp", "/output", "/dev/shm", "/home/agent"] {
        let node = Path::new(directory).join("node");
        let made = rustix::fs::mknodat(
            rustix::fs::CWD,
            &node,
            rustix::fs::FileType::CharacterDevice,
            rustix::fs::Mode::from_raw_mode(0o666),
            rustix::fs::makedev(1, 1),
        );
        if made.is_ok() {
            return Verdict::Broken(format!("made a device in {directory}"));
        }
    }
    Verdict::Holds("the usual harmless ones, and no other can be made".to_owned())
}

pub(super) fn executed_in_tmp() -> Verdict {
    for directory in ["/tmp", "/dev/shm"] {
        let copy = Path::new(directory).join("program");
        if fs::copy("/bin/true", &copy).is_err() {
            return Verdict::NotShown("there is no /bin/true to copy".to_owned());
        }
        drop(fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)));
        if Command::new(&copy).status().is_ok() {
            return Verdict::Broken(format!("a program in {directory} ran"));
        }
        for loader in ["/lib64/ld-linux-x86-64.so.2", "/lib/ld-musl-x86_64.so.1"] {
            let ran = Command::new(loader).arg(&copy).stderr(std::process::Stdio::null()).status();
            if ran.is_ok_and(|status| status.success()) {
                return Verdict::Broken(format!("the loader ran a program in {directory}"));
            }
        }
    }
    Verdict::Holds("neither by itself nor by the loader".to_owned())
}

pub(super) fn machines_files() -> Verdict {
    for path in [
        "/etc/shadow",
        "/root",
        "/host",
        "/var/lib",
        "/var/run",
        "/run",
        "/sys",
        "/boot",
        "/home/agent/.ssh",
        "/home/agent/.aws",
    ] {
        if fs::symlink_metadata(path).is_ok() {
            return Verdict::Broken(format!("{path} is there"));
        }
    }
    let homes: Vec<_> =
        fs::read_dir("/home").into_iter().flatten().flatten().map(|e| e.file_name()).collect();
    if homes != ["agent"] {
        return Verdict::Broken(format!("/home holds {homes:?}"));
    }
    for path in ["/usr/agentjail-attack", "/etc/passwd", "/bin/sh"] {
        if File::options().append(true).create(true).open(path).is_ok() {
            return Verdict::Broken(format!("{path} can be written"));
        }
    }
    Verdict::Holds("no home, no state, no /etc of the machine; the system is read-only".to_owned())
}

/// Each tree takes its limit and no more; in files, too.
pub(super) fn filled_trees() -> Verdict {
    const LIMIT: u64 = 4 << 20;
    let path = Path::new("/output/fill");
    let block = vec![7; 64 << 10];
    let mut taken = 0;
    if let Ok(mut file) = File::create(path) {
        while taken <= 4 * LIMIT && file.write_all(&block).is_ok() {
            taken += block.len() as u64;
        }
    }
    drop(fs::remove_file(path));
    if taken > LIMIT {
        return Verdict::Broken(format!("/output took {taken} bytes where {LIMIT} are allowed"));
    }
    let mut files = 0_u64;
    while files < 8192 && File::create(format!("/output/{files}")).is_ok() {
        files += 1;
    }
    if files >= 8192 {
        return Verdict::Broken("8,192 files".to_owned());
    }
    Verdict::Holds(format!("{taken} bytes and {files} files, then no more"))
}
