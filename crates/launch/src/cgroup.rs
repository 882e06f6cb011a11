//! Control groups: limits that hold before the command runs, and what it used.
//!
//! Two drivers give the same limits. v2 is the target; where the controllers are still on v1 (the
//! hybrid layout), the v1 driver does the same with one directory a controller. Groups are made
//! only below `agentjail/<instance>` in the launcher's own group, and removed when their jail ends.

mod freezer;
mod layout;
mod statistics;
mod v1;
mod v2;

use std::fmt;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::{Deserialize, Serialize};

pub use freezer::{freeze, is_frozen, thaw};
pub use statistics::{Counters, Statistics};

use crate::message::{At as _, Fault, Limits};

/// The directory that holds all our groups.
pub const PARENT: &str = "agentjail";

/// On v2, the leaf below [`PARENT`] that the server moves to where its own group must be empty of
/// processes.
const SERVER: &str = "server";

/// Where a jail's group is, by what is counted there. On v2 all are the same directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    pub version: Version,
    pub memory: Option<PathBuf>,
    pub cpu: Option<PathBuf>,
    pub pids: Option<PathBuf>,
    pub io: Option<PathBuf>,
    /// Where it can be frozen: a group of the unified tree.
    pub freezer: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Version {
    V1,
    V2,
}

/// Which limits a driver can set.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Controllers {
    pub(crate) memory: bool,
    pub(crate) cpu: bool,
    pub(crate) pids: bool,
    pub(crate) io: bool,
}

/// One way of making groups.
pub(crate) trait Driver: fmt::Debug {
    fn name(&self) -> &'static str;

    fn controllers(&self) -> Controllers;

    /// Makes what a process must be born into.
    fn begin(&self, name: &str) -> Result<Group, Fault>;

    /// Makes the rest. May go on while the process that was born sets itself up.
    fn complete(&self, group: &mut Group) -> Result<(), Fault>;

    /// Puts limits in force, leaving alone what is as it should be.
    fn limit(&self, group: &mut Group, limits: &Limits) -> Result<(), Fault>;

    /// Readable when some group has run out of memory, where the kernel does not end the whole of it
    /// by itself.
    fn memory_alarm(&self) -> Option<BorrowedFd<'_>>;

    /// Directories of all jails together, as this process reaches them.
    fn instances(&self) -> Vec<PathBuf>;

    /// Removes what was made for all jails together.
    fn remove(&self) {
        for instance in self.instances() {
            remove_instance(&instance);
        }
    }

    /// Groups of jails of a launcher before this one, which was killed.
    fn orphans(&self) -> Group {
        Group {
            birth: None,
            join: Vec::new(),
            place: Place::nowhere(),
            name: String::new(),
            jail: None,
            rests_until: None,
            limits: None,
            is_watched: false,
            directories: self.instances().iter().flat_map(|instance| children(instance)).collect(),
        }
    }
}

impl Place {
    fn nowhere() -> Self {
        Self { version: Version::V2, memory: None, cpu: None, pids: None, io: None, freezer: None }
    }
}

/// A jail's group. Its owner removes it once nothing runs in it.
#[derive(Debug)]
pub(crate) struct Group {
    /// A directory of the unified tree, for a process to be born into: limits hold from its first
    /// instruction.
    pub(crate) birth: Option<OwnedFd>,
    /// Files a process writes itself into. A thread that moves itself takes no lock that all forks of
    /// the machine wait for, unlike one that is moved.
    pub(crate) join: Vec<OwnedFd>,
    pub(crate) place: Place,
    name: String,
    /// The jail it is for, when there is one.
    pub(crate) jail: Option<u64>,
    /// Not to be removed before: somebody will want to read what happened.
    pub(crate) rests_until: Option<Instant>,
    limits: Option<Limits>,
    /// Whether its memory rings the alarm.
    is_watched: bool,
    /// As this process reaches them; [`Place`] has the paths of the host.
    directories: Vec<PathBuf>,
}

impl Group {
    /// Removes the group. Fails while the kernel still counts a process in it.
    pub(crate) fn remove(&mut self) -> bool {
        self.directories
            .retain(|directory| fs::remove_dir(directory).is_err() && directory.exists());
        self.directories.is_empty()
    }

    /// Whether its memory is still counted apart, and the alarm will ring when that ends.
    pub(crate) fn will_ring(&self) -> bool {
        if !self.is_watched {
            return false;
        }
        let memory = self.place.memory.as_deref().and_then(Path::file_name);
        self.directories.iter().any(|directory| {
            directory.components().any(|part| part.as_os_str() == "memory")
                && directory.file_name() == memory
        })
    }

    /// Whether the kernel has killed a process of it for want of memory.
    pub(crate) fn ran_out_of_memory(&self, root: &Path) -> bool {
        let Some(memory) = &self.place.memory else { return false };
        Counters::default().oom_kills(&layout::below(root, memory), self.place.version) > 0
    }

    /// Finds every counter once. The kernel makes the entry of a file when it is first looked for; whoever
    /// reads the counters at a command's end shall find it there.
    pub(crate) fn find_counters(&self, root: &Path) {
        let seen = |path: &Option<PathBuf>| path.as_deref().map(|path| layout::below(root, path));
        let Place { version, memory, cpu, pids, io, freezer: _ } = &self.place;
        let [memory, cpu, pids, io] = [memory, cpu, pids, io].map(seen);
        let place = Place { version: *version, memory, cpu, pids, io, freezer: None };
        Counters::default().statistics(&place);
    }

    /// Whether a limit is not in force as asked.
    fn differs<T: PartialEq>(&self, asked: &Limits, of: impl Fn(&Limits) -> T) -> bool {
        self.limits.as_ref().is_none_or(|limits| of(limits) != of(asked))
    }
}

/// Whole disks of the machine, as `major:minor`.
fn disks(root: &Path) -> Vec<String> {
    let entries = fs::read_dir(root.join("sys/block")).into_iter().flatten().flatten();
    let holds = |path: &Path| {
        fs::read_to_string(path.join("size")).is_ok_and(|sectors| sectors.trim() != "0")
    };
    entries
        .map(|entry| entry.path())
        .filter(|path| holds(path))
        .filter_map(|path| Some(fs::read_to_string(path.join("dev")).ok()?.trim().to_owned()))
        .collect()
}

/// Finds the driver for this machine, or says why there is none.
///
/// `root` is where the host's root is seen from here.
pub(crate) fn detect(
    root: &Path,
    instance: &str,
    server_pid: u32,
) -> Result<Box<dyn Driver>, Fault> {
    let layout = layout::read(root).at("read the cgroup layout")?;
    if layout.v1.contains_key("memory") || layout.v2.is_none() {
        return Ok(Box::new(v1::V1::new(root, &layout, instance)?));
    }
    Ok(Box::new(v2::V2::new(root, &layout, instance, server_pid)?))
}

/// Makes the directory of an instance, and the parent of all. Another engine that ends may take the
/// parent away in between.
fn make_instance(directory: &Path) -> std::io::Result<()> {
    for _ in 0..20 {
        match fs::create_dir_all(directory) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            other => return other,
        }
    }
    fs::create_dir_all(directory)
}

/// Writes one value into a control file.
fn write(directory: &Path, file: &str, value: impl fmt::Display) -> Result<(), Fault> {
    let path = directory.join(file);
    File::options()
        .write(true)
        .open(&path)
        .and_then(|mut opened| opened.write_all(value.to_string().as_bytes()))
        .at(format!("write {value} to {}", path.display()))
}

/// The removal of an instance's directory and, if it was the last, of the parent.
fn remove_instance(directory: &Path) {
    // Either may have other users: another server's instances, or a group not yet empty.
    drop(fs::remove_dir(directory));
    if let Some(parent) = directory.parent() {
        drop(fs::remove_dir(parent));
    }
}

/// Removes the groups that launchers of former servers left behind when everything was killed at
/// once. `alive` tells whether an instance is still in use.
///
/// Only empty groups can be removed, so a wrong answer of `alive` ends nothing. Gives how many
/// groups that should have gone could not.
pub fn sweep(root: &Path, alive: impl Fn(&str) -> bool) -> usize {
    let Ok(layout) = layout::read(root) else { return 0 };
    let mut left = 0;
    for own in layout.v1.values().chain(&layout.v2) {
        let parent = layout::below(root, own).join(PARENT);
        for instance in children(&parent) {
            if alive(&instance.file_name().unwrap_or_default().to_string_lossy()) {
                continue;
            }
            for group in children(&instance) {
                drop(fs::remove_dir(group));
            }
            left += usize::from(fs::remove_dir(&instance).is_err() && instance.exists());
        }
        drop(fs::remove_dir(parent));
    }
    left
}

fn children(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}
