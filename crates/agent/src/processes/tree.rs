//! Processes and what descends from them, as `/proc` tells it.

use std::collections::HashSet;
use std::fs;

use rustix::process::{Pid, Signal, getpid, getppid, kill_process, kill_process_group};

/// Processes that are looked at in one go: a fork bomb must not keep us here.
const MOST: usize = 10_000;

/// Signals a process, its group, and all that descends from it, groups of their own included.
pub(crate) fn kill(pid: Pid, signal: Signal) {
    // Those that left the group are found while their parents still live.
    let strays: Vec<Pid> = descendants(pid);
    let _ = kill_process_group(pid, signal);
    let _ = kill_process(pid, signal);
    for stray in strays {
        let _ = kill_process(stray, signal);
    }
}

/// The variable by which what descends from a process is known wherever it has gone.
pub(super) const MARK: &str = "SANDBOX_AGENT_PROCESS";

/// How often strays are looked for again: one may be starting another just then.
const ROUNDS: usize = 20;

/// Kills all that bears a mark: daemons that have left their group, their session and their parent.
pub(super) fn kill_marked(mark: &str) {
    let wanted = format!("{MARK}={mark}");
    for _ in 0..ROUNDS {
        let marked: Vec<Pid> = everybody().filter(|pid| bears(*pid, wanted.as_bytes())).collect();
        if marked.is_empty() {
            return;
        }
        for pid in marked {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

fn everybody() -> impl Iterator<Item = Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?))
}

fn bears(pid: Pid, mark: &[u8]) -> bool {
    // Nobody's but ours can be read, and a zombie has none.
    let environ = fs::read(format!("/proc/{}/environ", pid.as_raw_nonzero())).unwrap_or_default();
    environ.split(|byte| *byte == 0).any(|variable| variable == mark)
}

/// Signals all that this server has started: what descends from it, and, if its parent is its keeper, what has been
/// orphaned and so descends from that.
pub(crate) fn signal_all(signal: Signal, keeper: Option<u32>) {
    let mut done: HashSet<Pid> = HashSet::new();
    for _ in 0..ROUNDS {
        let fresh: Vec<Pid> = started(keeper).into_iter().filter(|pid| done.insert(*pid)).collect();
        // One that was starting another just then is followed by another look.
        if fresh.is_empty() {
            return;
        }
        for process in fresh {
            let _ = kill_process(process, signal);
        }
    }
}

/// What this server has started.
fn started(keeper: Option<u32>) -> Vec<Pid> {
    let own = getpid();
    // One that has died has left us to somebody else, who has children that are none of ours.
    let kept =
        getppid().filter(|parent| Some(parent.as_raw_nonzero().get().cast_unsigned()) == keeper);
    let top = kept.unwrap_or(own);
    descendants(top).into_iter().filter(|pid| *pid != own).collect()
}

/// What descends from a process, parents first.
pub fn descendants(pid: Pid) -> Vec<Pid> {
    let mut found: Vec<Pid> = children(pid);
    let mut seen: HashSet<Pid> = found.iter().copied().collect();
    let mut next = 0;
    while next < found.len() && found.len() < MOST {
        for child in children(found[next]) {
            if seen.insert(child) {
                found.push(child);
            }
        }
        next += 1;
    }
    found
}

fn children(pid: Pid) -> Vec<Pid> {
    let pid = pid.as_raw_nonzero();
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let mut found = Vec::new();
    for thread in threads.flatten() {
        let Ok(text) = fs::read_to_string(thread.path().join("children")) else { continue };
        let numbers = text.split_ascii_whitespace().filter_map(|number| number.parse().ok());
        found.extend(numbers.filter_map(Pid::from_raw));
    }
    found
}
