//! Attempts on processes, descriptors, capabilities and limits.

use std::fs;
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Signal, getrlimit, kill_process};
use rustix::thread::no_new_privs;

use super::Verdict;

pub(super) fn inherited_descriptors() -> Verdict {
    let open: Vec<String> = fs::read_dir("/proc/self/fd")
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| fs::read_link(entry.path()).is_ok_and(|to| !to.ends_with("fd")))
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| !["0", "1", "2"].contains(&name.as_str()))
        .collect();
    if !open.is_empty() {
        return Verdict::Broken(format!("open: {}", open.join(", ")));
    }
    match std::env::current_dir() {
        Ok(directory) if directory.starts_with("/workspace") => {
            Verdict::Holds("only 0, 1 and 2; the working directory is inside".to_owned())
        }
        other => Verdict::Broken(format!("the working directory is {other:?}")),
    }
}

pub(super) fn signals_to_everyone() -> Verdict {
    // Signal 0 is sent to nobody and tells who could be reached.
    let reached = (1..=4096)
        .filter_map(Pid::from_raw)
        .filter(|pid| {
            *pid != rustix::process::getpid() && rustix::process::test_kill_process(*pid).is_ok()
        })
        .count();
    // A jail has init (not to be signalled) and us.
    if reached > 1 {
        return Verdict::Broken(format!("{reached} other processes could be signalled"));
    }
    if let Some(init) = Pid::from_raw(1) {
        let _ = kill_process(init, Signal::KILL);
    }
    Verdict::Holds("no process but those of the jail; init does not hear".to_owned())
}

pub(super) fn core_dumps() -> Verdict {
    let limit = getrlimit(Resource::Core);
    match (limit.current, limit.maximum) {
        (Some(now), Some(most)) if now <= 1 && most <= 1 => {
            Verdict::Holds("none can be written, nor piped to a program".to_owned())
        }
        other => Verdict::Broken(format!("the limit is {other:?}")),
    }
}

fn capabilities_of(status: &str, field: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

pub(super) fn capabilities() -> Verdict {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    for field in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        match capabilities_of(&status, field) {
            Some(0) => {}
            other => return Verdict::Broken(format!("{field} {other:x?}")),
        }
    }
    if !no_new_privs().unwrap_or(false) {
        return Verdict::Broken("no_new_privs is not set".to_owned());
    }
    let root = rustix::thread::Uid::ROOT;
    if rustix::thread::set_thread_res_uid(root, root, root).is_ok() {
        return Verdict::Broken("became root".to_owned());
    }
    Verdict::Holds("none held, none to gain".to_owned())
}

pub(super) fn foreign_interface() -> Verdict {
    let child = Command::new(own_program()).args(["attempt", "B01-child"]).output();
    match child {
        Ok(output) if output.status.signal() == Some(Signal::SYS.as_raw()) => {
            Verdict::Holds("the caller is killed".to_owned())
        }
        Ok(output) if output.status.signal() == Some(Signal::SEGV.as_raw()) => {
            Verdict::NotShown("this kernel has no 32-bit interface".to_owned())
        }
        Ok(output) => Verdict::Broken(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        Err(error) => Verdict::NotShown(error.to_string()),
    }
}

pub(super) fn own_program() -> std::path::PathBuf {
    std::env::current_exe().unwrap_or_default()
}

pub(super) fn threads() -> Verdict {
    let worked = std::thread::Builder::new().spawn(|| 7).map(std::thread::JoinHandle::join);
    match worked {
        Ok(Ok(7)) => Verdict::Holds("a thread ran".to_owned()),
        other => Verdict::Broken(format!("no thread: {other:?}")),
    }
}

/// Starts a process that leaves session and parent, and says it has; the outside looks for it.
pub(super) fn hide() -> Verdict {
    let started = Command::new("/bin/sh")
        .args([
            "-c",
            "trap '' TERM HUP INT; setsid sh -c 'trap \"\" TERM HUP INT; sleep 86419' & exit 0",
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status();
    match started {
        Ok(_) => Verdict::Holds("hidden".to_owned()),
        Err(error) => Verdict::NotShown(error.to_string()),
    }
}

pub(super) fn fork_bomb() -> Verdict {
    let mut children = Vec::new();
    let mut refused = None;
    for _ in 0..200 {
        match Command::new("/bin/sleep").arg("60").stdin(Stdio::null()).spawn() {
            Ok(child) => children.push(child),
            Err(error) => {
                refused = Some(error);
                break;
            }
        }
    }
    let count = children.len();
    for mut child in children {
        drop(child.kill());
        drop(child.wait());
    }
    match refused {
        Some(error) if count < 40 => Verdict::Holds(format!("{count} children, then: {error}")),
        _ => Verdict::Broken(format!("{count} children where 32 processes are allowed")),
    }
}

/// Ends by being killed, which the outside sees; if not, it says so.
pub(super) fn memory_bomb() -> Verdict {
    let mut taken = Vec::new();
    for _ in 0..256 {
        taken.push(vec![1_u8; 1 << 20]);
    }
    Verdict::Broken(format!("took {} MiB where 64 are allowed", taken.len()))
}

pub(super) fn descriptors_without_end() -> Verdict {
    let mut open = Vec::new();
    while let Ok(file) = fs::File::open("/dev/null") {
        open.push(file);
        if open.len() > 4096 {
            return Verdict::Broken("more than 4,096 open files".to_owned());
        }
    }
    let files = open.len();
    drop(open);
    let mut watches = 0;
    let began = Instant::now();
    let mut instances = Vec::new();
    while began.elapsed() < Duration::from_secs(2)
        && let Ok(instance) = rustix::fs::inotify::init(rustix::fs::inotify::CreateFlags::empty())
    {
        instances.push(instance);
        watches += 1;
        if watches > 64 {
            return Verdict::Broken("more than 64 inotify instances".to_owned());
        }
    }
    drop(std::io::stdout().flush());
    Verdict::Holds(format!("{files} files and {watches} inotify instances, then no more"))
}
