//! What a jail used, read from its group.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{CWD, Mode, OFlags, openat};

use super::{Place, Version};

/// Parent directories that are kept open at most.
const MOST_PARENTS: usize = 16;

/// What a jail used so far. Zero where nothing is counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Statistics {
    pub memory_peak_bytes: u64,
    pub memory_current_bytes: u64,
    pub cpu_usage_usec: u64,
    pub cpu_user_usec: u64,
    pub cpu_system_usec: u64,
    pub io_read_bytes: u64,
    pub io_write_bytes: u64,
    pub pids_current: u64,
    /// Processes the kernel killed because the memory limit was reached.
    pub oom_kills: u64,
}

/// Reads the counters of groups that lie side by side. Somebody waits for them at the end of every command,
/// so what the groups lie in stays open: the kernel need not find its way there each time.
#[derive(Debug, Default)]
pub struct Counters {
    parents: Mutex<HashMap<PathBuf, Arc<OwnedFd>>>,
}

impl Counters {
    /// Reads a group's counters.
    pub fn statistics(&self, place: &Place) -> Statistics {
        match place.version {
            Version::V1 => self.v1(place),
            Version::V2 => place.memory.as_deref().map(|at| self.v2(at)).unwrap_or_default(),
        }
    }

    fn v1(&self, place: &Place) -> Statistics {
        let at = |directory: &Option<_>, file: &str| {
            directory.as_deref().map(|directory| self.read(directory, file)).unwrap_or_default()
        };
        let io = at(&place.io, "blkio.throttle.io_service_bytes");
        // All of it is exact here; its part in user mode is counted by ticks, as both are in `usage_all`.
        let cpu = number(&at(&place.cpu, "cpuacct.usage")) / 1000;
        let user = number(&at(&place.cpu, "cpuacct.usage_user")) / 1000;
        let oom = place.memory.as_deref().map(|at| self.oom_kills(at, Version::V1));
        Statistics {
            memory_peak_bytes: number(&at(&place.memory, "memory.max_usage_in_bytes")),
            memory_current_bytes: number(&at(&place.memory, "memory.usage_in_bytes")),
            cpu_usage_usec: cpu,
            cpu_user_usec: user.min(cpu),
            cpu_system_usec: cpu.saturating_sub(user),
            io_read_bytes: sum_v1(&io, "Read"),
            io_write_bytes: sum_v1(&io, "Write"),
            pids_current: number(&at(&place.pids, "pids.current")),
            oom_kills: oom.unwrap_or_default(),
        }
    }

    fn v2(&self, directory: &Path) -> Statistics {
        let io = self.read(directory, "io.stat");
        let cpu = self.read(directory, "cpu.stat");
        // The kernel rounds each by itself: all of it shall be the sum of its parts.
        let (usage, user) = (field(&cpu, "usage_usec"), field(&cpu, "user_usec"));
        Statistics {
            memory_peak_bytes: number(&self.read(directory, "memory.peak")),
            memory_current_bytes: number(&self.read(directory, "memory.current")),
            cpu_usage_usec: usage,
            cpu_user_usec: user.min(usage),
            cpu_system_usec: usage.saturating_sub(user),
            io_read_bytes: sum_v2(&io, "rbytes="),
            io_write_bytes: sum_v2(&io, "wbytes="),
            pids_current: number(&self.read(directory, "pids.current")),
            oom_kills: self.oom_kills(directory, Version::V2),
        }
    }

    /// Processes of a group that the kernel killed for want of memory.
    pub(super) fn oom_kills(&self, directory: &Path, version: Version) -> u64 {
        let file = match version {
            Version::V1 => "memory.oom_control",
            Version::V2 => "memory.events",
        };
        field(&self.read(directory, file), "oom_kill")
    }

    /// CPU time used so far, in microseconds: the one counter that a limit is checked against often.
    pub fn cpu_usage_usec(&self, place: &Place) -> u64 {
        match (place.version, &place.cpu) {
            (Version::V1, Some(directory)) => number(&self.read(directory, "cpuacct.usage")) / 1000,
            (Version::V2, Some(directory)) => {
                field(&self.read(directory, "cpu.stat"), "usage_usec")
            }
            (_, None) => 0,
        }
    }

    /// Reads a control file; what cannot be read is empty.
    fn read(&self, directory: &Path, file: &str) -> String {
        self.open(directory, file).map(|opened| read_whole(&opened)).unwrap_or_default()
    }

    fn open(&self, directory: &Path, file: &str) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let whole = || openat(CWD, directory.join(file), flags, Mode::empty());
        let (Some(parent), Some(name)) = (directory.parent(), directory.file_name()) else {
            return whole();
        };
        let below = self
            .parent(parent)
            .and_then(|parent| openat(&*parent, Path::new(name).join(file), flags, Mode::empty()));
        // The launcher was killed, and another has made its parent directory anew.
        below.or_else(|_| {
            self.lock().remove(parent);
            whole()
        })
    }

    fn parent(&self, path: &Path) -> rustix::io::Result<Arc<OwnedFd>> {
        let mut parents = self.lock();
        if let Some(known) = parents.get(path) {
            return Ok(Arc::clone(known));
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = Arc::new(openat(CWD, path, flags, Mode::empty())?);
        // Six, where each controller has a hierarchy of its own.
        if parents.len() >= MOST_PARENTS {
            parents.clear();
        }
        parents.insert(path.to_owned(), Arc::clone(&opened));
        Ok(opened)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PathBuf, Arc<OwnedFd>>> {
        self.parents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The kernel gives a control file whole if there is room: one that does not fill the buffer has ended.
fn read_whole(opened: &OwnedFd) -> String {
    let mut text = Vec::new();
    let mut buffer = [0; 1024];
    while let Ok(length) = rustix::io::read(opened, &mut buffer) {
        text.extend_from_slice(buffer.get(..length).unwrap_or_default());
        if length < buffer.len() {
            break;
        }
    }
    String::from_utf8(text).unwrap_or_default()
}

fn number(text: &str) -> u64 {
    text.trim().parse().unwrap_or_default()
}

/// The number behind `name` in lines of the form `name 17`.
fn field(text: &str, name: &str) -> u64 {
    let value = |line: &str| number(line.strip_prefix(name)?.strip_prefix(' ')?).into();
    text.lines().find_map(value).unwrap_or_default()
}

/// Adds up lines of the form `8:0 Read 17`.
fn sum_v1(text: &str, operation: &str) -> u64 {
    let of_line = |line: &str| {
        let mut words = line.split(' ').skip(1);
        (words.next()? == operation).then(|| number(words.next().unwrap_or_default()))
    };
    text.lines().filter_map(of_line).sum()
}

/// Adds up words of the form `rbytes=17`.
fn sum_v2(text: &str, key: &str) -> u64 {
    text.split_whitespace().filter_map(|word| word.strip_prefix(key)).map(number).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_that_was_made_anew_is_found_again() {
        let directory = tempfile::tempdir().unwrap();
        let (counters, group) = (Counters::default(), directory.path().join("instance/jail-1"));
        for usage in ["17000", "18000"] {
            std::fs::create_dir_all(&group).unwrap();
            std::fs::write(group.join("cpuacct.usage"), usage).unwrap();
            for _ in 0..2 {
                assert_eq!(counters.read(&group, "cpuacct.usage"), usage);
            }
            assert_eq!(counters.read(&group, "pids.current"), "");
            std::fs::remove_dir_all(directory.path().join("instance")).unwrap();
        }
        assert_eq!(counters.read(&group, "cpuacct.usage"), "");
    }

    #[test]
    fn the_kernels_files_are_read() {
        assert_eq!(field("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n", "oom_kill"), 2);
        assert_eq!(field("usage_usec 77\nuser_usec 7\n", "usage_usec"), 77);
        assert_eq!(sum_v1("8:0 Read 5\n8:0 Write 7\n9:0 Read 1\nTotal 13\n", "Read"), 6);
        assert_eq!(sum_v2("8:0 rbytes=5 wbytes=7\n9:0 rbytes=1 wbytes=0\n", "rbytes="), 6);
        assert_eq!(number("max\n"), 0);
    }
}
