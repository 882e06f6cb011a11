//! cgroup v1, and the hybrid layout whose controllers are there: one directory a controller.

use std::fs::{self, File};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{CWD, Mode, OFlags, openat};

use super::{
    Controllers, Driver, Group, PARENT, Place, Version, disks, layout, make_instance, write,
};
use crate::message::{At as _, Fault, Limits};
use mutation::{Protection, keeps};

/// What we use. `cpu` and `blkio` limit; `cpuacct` only counts.
const CONTROLLERS: [&str; 5] = ["memory", "pids", "cpu", "cpuacct", "blkio"];

/// Length of the period that a CPU quota is for.
const PERIOD_USEC: u64 = 100_000;

#[derive(Debug)]
pub(super) struct V1 {
    root: PathBuf,
    /// Controller and the instance's directory in its hierarchy, as a path of the host. Controllers
    /// that are mounted together share one.
    instances: Vec<(&'static str, PathBuf)>,
    /// The instance's directory in the unified tree, which can freeze. Absent on a pure v1 machine.
    unified: Option<PathBuf>,
    /// Rings when a group has run out of memory: v1 kills one process, and the rest is ours to end.
    alarm: OwnedFd,
}

impl V1 {
    pub(super) fn new(root: &Path, layout: &layout::Layout, instance: &str) -> Result<Self, Fault> {
        let mut instances = Vec::new();
        for controller in CONTROLLERS {
            let Some(own) = layout.v1.get(controller) else { continue };
            let directory = own.join(PARENT).join(instance);
            let seen = layout::below(root, &directory);
            make_instance(&seen).at(format!("make cgroup {}", directory.display()))?;
            // A directory made on something that is no cgroup limits nothing.
            fs::metadata(seen.join("tasks")).at(format!("find {}/tasks", directory.display()))?;
            instances.push((controller, directory));
        }
        let unified = layout.v2.as_ref().map(|own| own.join(PARENT).join(instance));
        // Freezing is all it is for: where it is not ours to write to, there is no freezing.
        let unified = unified.filter(|path| make_instance(&layout::below(root, path)).is_ok());
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let alarm = eventfd(0, flags).at("make an event descriptor")?;
        Ok(Self { root: root.to_owned(), instances, unified, alarm })
    }

    fn directory(&self, controller: &str, name: &str) -> Option<PathBuf> {
        let (_, instance) = self.instances.iter().find(|(known, _)| *known == controller)?;
        Some(instance.join(name))
    }

    /// Asks to be told when a group runs out of memory.
    fn watch_memory(&self, directory: &Path) -> Result<(), Fault> {
        let control = File::open(directory.join("memory.oom_control")).at("open oom_control")?;
        let line = format!("{} {}", self.alarm.as_raw_fd(), control.as_raw_fd());
        write(directory, "cgroup.event_control", line)
    }
}

impl Driver for V1 {
    fn name(&self) -> &'static str {
        "v1"
    }

    fn controllers(&self) -> Controllers {
        let has = |name| self.instances.iter().any(|(known, _)| *known == name);
        Controllers { memory: has("memory"), cpu: has("cpu"), pids: has("pids"), io: has("blkio") }
    }

    fn begin(&self, name: &str) -> Result<Group, Fault> {
        let freezer = self.unified.as_ref().map(|instance| instance.join(name));
        let place = Place {
            version: Version::V1,
            memory: self.directory("memory", name),
            cpu: self.directory("cpuacct", name),
            pids: self.directory("pids", name),
            io: self.directory("blkio", name),
            freezer: freezer.clone(),
        };
        let mut group = Group {
            birth: None,
            join: Vec::new(),
            place,
            name: name.to_owned(),
            jail: None,
            rests_until: None,
            limits: None,
            is_watched: false,
            directories: Vec::new(),
        };
        if let Some(path) = freezer {
            let directory = layout::below(&self.root, &path);
            fs::create_dir(&directory).at(format!("make cgroup {}", path.display()))?;
            let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
            group.directories.push(directory.clone());
            match openat(CWD, &directory, flags, Mode::empty()) {
                Ok(opened) => group.birth = Some(opened),
                Err(error) => {
                    group.remove();
                    return Err(error).at("open the cgroup");
                }
            }
        }
        Ok(group)
    }

    fn complete(&self, group: &mut Group) -> Result<(), Fault> {
        for (controller, instance) in &self.instances {
            let directory = layout::below(&self.root, &instance.join(&group.name));
            if group.directories.contains(&directory) {
                continue;
            }
            // Not `create_dir_all`: a group that is already there has another jail's counters.
            fs::create_dir(&directory).at(format!("make cgroup {}", directory.display()))?;
            group.directories.push(directory.clone());
            let tasks = File::options().write(true).open(directory.join("tasks"));
            group.join.push(tasks.at("open the cgroup's tasks")?.into());
            if *controller == "memory" {
                self.watch_memory(&directory)?;
                group.is_watched = true;
            }
        }
        Ok(())
    }

    fn limit(&self, group: &mut Group, limits: &Limits) -> Result<(), Fault> {
        for (controller, instance) in &self.instances {
            let directory = layout::below(&self.root, &instance.join(&group.name));
            match *controller {
                "memory" if group.differs(limits, |l| l.memory_bytes) => {
                    limit_memory(&directory, limits.memory_bytes)?;
                }
                "pids" if group.differs(limits, |l| l.pids) && keeps(Protection::PidLimit) => {
                    write(&directory, "pids.max", u64::from(limits.pids) + 1)?;
                }
                "cpu" => {
                    if group.differs(limits, |l| l.cpu_percent) {
                        let quota = u64::from(limits.cpu_percent) * PERIOD_USEC / 100;
                        write(&directory, "cpu.cfs_quota_us", quota)?;
                    }
                    if group.differs(limits, |l| l.cpu_weight) {
                        let shares = u64::from(limits.cpu_weight.unwrap_or(100)) * 1024 / 100;
                        write(&directory, "cpu.shares", shares.max(2))?;
                    }
                }
                "blkio"
                    if group.limits.map_or(limits.io_bytes_per_second.is_some(), |before| {
                        before.io_bytes_per_second != limits.io_bytes_per_second
                    }) =>
                {
                    limit_io(&self.root, &directory, limits.io_bytes_per_second)?;
                }
                _ => {}
            }
        }
        group.limits = Some(*limits);
        Ok(())
    }

    fn memory_alarm(&self) -> Option<BorrowedFd<'_>> {
        Some(self.alarm.as_fd())
    }

    fn instances(&self) -> Vec<PathBuf> {
        let all = self.instances.iter().map(|(_, path)| path).chain(&self.unified);
        all.map(|instance| layout::below(&self.root, instance)).collect()
    }
}

fn limit_memory(directory: &Path, bytes: u64) -> Result<(), Fault> {
    if !keeps(Protection::MemoryLimit) {
        return Ok(());
    }
    let both = directory.join("memory.memsw.limit_in_bytes").exists();
    // The limit of memory and swap together may never be below that of memory alone.
    if both && bytes > current(directory, "memory.memsw.limit_in_bytes") {
        write(directory, "memory.memsw.limit_in_bytes", bytes)?;
    }
    write(directory, "memory.limit_in_bytes", bytes)?;
    if both {
        write(directory, "memory.memsw.limit_in_bytes", bytes)?;
    }
    // What TCP queues for a socket is counted apart, and by some kernels only.
    if directory.join("memory.kmem.tcp.limit_in_bytes").exists() {
        write(directory, "memory.kmem.tcp.limit_in_bytes", bytes)?;
    }
    Ok(())
}

fn current(directory: &Path, file: &str) -> u64 {
    let text = fs::read_to_string(directory.join(file)).unwrap_or_default();
    text.trim().parse().unwrap_or(u64::MAX)
}

/// 0 takes a limit away.
fn limit_io(root: &Path, directory: &Path, bytes_per_second: Option<u64>) -> Result<(), Fault> {
    for disk in disks(root) {
        for file in ["blkio.throttle.read_bps_device", "blkio.throttle.write_bps_device"] {
            write(directory, file, format!("{disk} {}", bytes_per_second.unwrap_or(0)))?;
        }
    }
    Ok(())
}
