//! cgroup v2: one directory a jail.

use std::fs;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat};

use super::{
    Controllers, Driver, Group, PARENT, Place, SERVER, Version, disks, layout, make_instance, write,
};
use crate::message::{At as _, Fault, Limits};
use mutation::{Protection, keeps};

const WANTED: [&str; 4] = ["memory", "cpu", "pids", "io"];

/// Length of the period that a CPU quota is for.
const PERIOD_USEC: u64 = 100_000;

#[derive(Debug)]
pub(super) struct V2 {
    root: PathBuf,
    instance: PathBuf,
    controllers: Vec<&'static str>,
}

impl V2 {
    pub(super) fn new(
        root: &Path,
        layout: &layout::Layout,
        instance: &str,
        server_pid: u32,
    ) -> Result<Self, Fault> {
        let own =
            layout.v2.as_ref().ok_or(rustix::io::Errno::NOENT).at("find the cgroup v2 mount")?;
        let seen = layout::below(root, own);
        let offered =
            fs::read_to_string(seen.join("cgroup.controllers")).at("read cgroup.controllers")?;
        let controllers: Vec<&str> = WANTED
            .into_iter()
            .filter(|name| offered.split_whitespace().any(|o| o == *name))
            .collect();
        let parent = seen.join(PARENT);
        fs::create_dir_all(&parent).at(format!("make cgroup {}", own.join(PARENT).display()))?;
        if hand_down(&seen, &controllers).is_err() {
            // The kernel hands controllers down only from a group without processes of its own
            // (but for the root): ours move into a leaf beside the jails.
            let leaf = parent.join(SERVER);
            fs::create_dir_all(&leaf).at("make a cgroup for the server")?;
            write(&leaf, "cgroup.procs", server_pid)?;
            write(&leaf, "cgroup.procs", 0)?;
            hand_down(&seen, &controllers)?;
        }
        let directory = own.join(PARENT).join(instance);
        let made = layout::below(root, &directory);
        make_instance(&made).at(format!("make cgroup {}", directory.display()))?;
        hand_down(&parent, &controllers)?;
        hand_down(&made, &controllers)?;
        Ok(Self { root: root.to_owned(), instance: directory, controllers })
    }
}

impl Driver for V2 {
    fn name(&self) -> &'static str {
        "v2"
    }

    fn controllers(&self) -> Controllers {
        let has = |name| self.controllers.contains(&name);
        Controllers { memory: has("memory"), cpu: has("cpu"), pids: has("pids"), io: has("io") }
    }

    fn begin(&self, name: &str) -> Result<Group, Fault> {
        let path = self.instance.join(name);
        let directory = layout::below(&self.root, &path);
        // Not `create_dir_all`: a group that is already there has another jail's counters.
        fs::create_dir(&directory).at(format!("make cgroup {}", path.display()))?;
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let opened = openat(CWD, &directory, flags, Mode::empty()).at("open the cgroup");
        let mut group = Group {
            birth: None,
            join: Vec::new(),
            place: Place {
                version: Version::V2,
                memory: Some(path.clone()),
                cpu: Some(path.clone()),
                pids: Some(path.clone()),
                io: Some(path.clone()),
                freezer: Some(path),
            },
            name: name.to_owned(),
            jail: None,
            rests_until: None,
            limits: None,
            is_watched: false,
            directories: vec![directory],
        };
        match opened {
            Ok(opened) => group.birth = Some(opened),
            Err(fault) => {
                group.remove();
                return Err(fault);
            }
        }
        Ok(group)
    }

    /// All of a group is one directory, made before the birth.
    fn complete(&self, group: &mut Group) -> Result<(), Fault> {
        let directory = layout::below(&self.root, &self.instance.join(&group.name));
        if self.controllers.contains(&"memory") {
            // A jail is one thing: when memory runs out, all of it goes.
            write(&directory, "memory.oom.group", 1)?;
            if directory.join("memory.swap.max").exists() {
                write(&directory, "memory.swap.max", 0)?;
            }
        }
        Ok(())
    }

    fn limit(&self, group: &mut Group, limits: &Limits) -> Result<(), Fault> {
        let directory = layout::below(&self.root, &self.instance.join(&group.name));
        let has = |name| self.controllers.contains(&name);
        if has("memory")
            && group.differs(limits, |l| l.memory_bytes)
            && keeps(Protection::MemoryLimit)
        {
            write(&directory, "memory.max", limits.memory_bytes)?;
        }
        if has("pids") && group.differs(limits, |l| l.pids) && keeps(Protection::PidLimit) {
            write(&directory, "pids.max", u64::from(limits.pids) + 1)?;
        }
        if has("cpu") && group.differs(limits, |l| l.cpu_percent) {
            let quota = u64::from(limits.cpu_percent) * PERIOD_USEC / 100;
            write(&directory, "cpu.max", format!("{quota} {PERIOD_USEC}"))?;
        }
        if has("cpu") && group.differs(limits, |l| l.cpu_weight) {
            write(&directory, "cpu.weight", limits.cpu_weight.unwrap_or(100))?;
        }
        let io = limits.io_bytes_per_second;
        if has("io") && group.limits.map_or(io.is_some(), |l| l.io_bytes_per_second != io) {
            let rate = io.map_or("max".to_owned(), |bytes| bytes.to_string());
            for disk in disks(&self.root) {
                write(&directory, "io.max", format!("{disk} rbps={rate} wbps={rate}"))?;
            }
        }
        group.limits = Some(*limits);
        Ok(())
    }

    fn memory_alarm(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn instances(&self) -> Vec<PathBuf> {
        vec![layout::below(&self.root, &self.instance)]
    }
}

fn hand_down(directory: &Path, controllers: &[&str]) -> Result<(), Fault> {
    for controller in controllers {
        write(directory, "cgroup.subtree_control", format!("+{controller}"))?;
    }
    Ok(())
}
