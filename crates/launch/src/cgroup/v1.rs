//! cgroup v1, and the hybrid layout whose controllers are there: one directory a controller.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::{
    Controllers, Driver, Entry, Group, PARENT, Place, Version, layout, remove_instance, write,
};
use crate::message::{At as _, Fault, Limits};

/// What we use. `cpu` limits; `cpuacct` and `blkio` only count.
const CONTROLLERS: [&str; 5] = ["memory", "pids", "cpu", "cpuacct", "blkio"];

/// Length of the period that a CPU quota is for.
const PERIOD_USEC: u64 = 100_000;

#[derive(Debug)]
pub(super) struct V1 {
    root: PathBuf,
    /// Controller and the instance's directory in its hierarchy, as a path of the host. Controllers
    /// that are mounted together share one.
    instances: Vec<(&'static str, PathBuf)>,
}

impl V1 {
    pub(super) fn new(root: &Path, layout: &layout::Layout, instance: &str) -> Result<Self, Fault> {
        let mut instances = Vec::new();
        for controller in CONTROLLERS {
            let Some(own) = layout.v1.get(controller) else { continue };
            let directory = own.join(PARENT).join(instance);
            let seen = layout::below(root, &directory);
            fs::create_dir_all(&seen).at(format!("make cgroup {}", directory.display()))?;
            // A directory made on something that is no cgroup limits nothing.
            fs::metadata(seen.join("tasks")).at(format!("find {}/tasks", directory.display()))?;
            instances.push((controller, directory));
        }
        Ok(Self { root: root.to_owned(), instances })
    }

    fn directory(&self, controller: &str, name: &str) -> Option<PathBuf> {
        let (_, instance) = self.instances.iter().find(|(known, _)| *known == controller)?;
        Some(instance.join(name))
    }
}

impl Driver for V1 {
    fn name(&self) -> &'static str {
        "v1"
    }

    fn controllers(&self) -> Controllers {
        let has = |name| self.instances.iter().any(|(known, _)| *known == name);
        Controllers { memory: has("memory"), cpu: has("cpu"), pids: has("pids") }
    }

    fn create(&self, name: &str, limits: &Limits) -> Result<Group, Fault> {
        let place = Place {
            version: Version::V1,
            memory: self.directory("memory", name),
            cpu: self.directory("cpuacct", name),
            pids: self.directory("pids", name),
            io: self.directory("blkio", name),
        };
        let mut group = Group { entry: Entry::Files(Vec::new()), place, directories: Vec::new() };
        let made = self.fill(&mut group, name, limits);
        if made.is_err() {
            group.remove();
        }
        made.map(|files| Group { entry: Entry::Files(files), ..group })
    }

    fn remove(&self) {
        for (_, instance) in &self.instances {
            remove_instance(&layout::below(&self.root, instance));
        }
    }
}

impl V1 {
    fn fill(
        &self,
        group: &mut Group,
        name: &str,
        limits: &Limits,
    ) -> Result<Vec<std::os::fd::OwnedFd>, Fault> {
        let mut files = Vec::new();
        for (controller, instance) in &self.instances {
            let directory = layout::below(&self.root, &instance.join(name));
            if !group.directories.contains(&directory) {
                // Not `create_dir_all`: a group that is already there has another jail's counters.
                fs::create_dir(&directory).at(format!("make cgroup {}", directory.display()))?;
                let tasks = File::options().write(true).open(directory.join("tasks"));
                files.push(tasks.at("open the cgroup's tasks")?.into());
                group.directories.push(directory.clone());
            }
            limit(controller, &directory, limits)?;
        }
        Ok(files)
    }
}

fn limit(controller: &str, directory: &Path, limits: &Limits) -> Result<(), Fault> {
    match controller {
        "memory" => {
            write(directory, "memory.limit_in_bytes", limits.memory_bytes)?;
            // What TCP queues for a socket is counted apart, and by some kernels only.
            if directory.join("memory.kmem.tcp.limit_in_bytes").exists() {
                write(directory, "memory.kmem.tcp.limit_in_bytes", limits.memory_bytes)?;
            }
            // Present only where swap is accounted for: memory and swap together.
            if directory.join("memory.memsw.limit_in_bytes").exists() {
                write(directory, "memory.memsw.limit_in_bytes", limits.memory_bytes)?;
            }
            Ok(())
        }
        "pids" => write(directory, "pids.max", u64::from(limits.pids) + 1),
        "cpu" => {
            write(directory, "cpu.cfs_period_us", PERIOD_USEC)?;
            let quota = u64::from(limits.cpu_percent) * PERIOD_USEC / 100;
            write(directory, "cpu.cfs_quota_us", quota)
        }
        _ => Ok(()),
    }
}
