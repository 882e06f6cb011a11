//! From a spec to an init that is about to run it.

use std::fs;
use std::io::Write as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, Signal, pidfd_send_signal};
use sys::{Birth, Instruction, MountAttributes, Namespaces, Reach, Side};

use crate::cgroup::{Driver, Entry, Group};
use crate::message::{Access, Assignment, At as _, Enforcement, Fault, Profile, Spec, Tree};
use crate::seccomp::{UnixSockets, filter};
use crate::template::USER_ID;
use crate::{init, template, wire};

/// Owners remembered; a server gives its jails directories of one or two.
const MAX_OWNER_MAPS: usize = 16;

/// What every birth needs, made once.
pub(crate) struct Birthplace {
    own_user: u32,
    host_user: u32,
    host_group: u32,
    pub(crate) landlock_abi: Option<u32>,
    filters: Filters,
    /// Host owners of directories that jails were given, and namespaces that map them to the
    /// jails' user.
    owner_maps: std::cell::RefCell<Vec<((u32, u32), OwnedFd)>>,
}

/// Compiled once, inherited by every jail.
struct Filters {
    standard: Vec<Instruction>,
    without_unix: Vec<Instruction>,
    strict: Vec<Instruction>,
}

impl Filters {
    fn compile() -> Self {
        Self {
            standard: filter(Profile::Standard, UnixSockets::Allowed),
            without_unix: filter(Profile::Standard, UnixSockets::Refused),
            strict: filter(Profile::Strict, UnixSockets::Refused),
        }
    }
}

/// Whether somebody outside could have a socket where this jail looks.
fn sees_host_tree(spec: &Spec) -> bool {
    [&spec.workspace, &spec.output].iter().any(|tree| matches!(tree, Tree::Host { .. }))
}

/// A jail that is on its way to run its command.
pub(crate) struct Newborn {
    pub(crate) pid: Pid,
    pub(crate) init: OwnedFd,
    pub(crate) group: Option<Group>,
}

/// Why there is no jail, and a group that may need a moment before it can be removed.
pub(crate) struct Stillborn {
    pub(crate) fault: Box<Fault>,
    pub(crate) group: Option<Box<Group>>,
}

impl Birthplace {
    pub(crate) fn new(host_user: u32, host_group: u32, landlock_abi: Option<u32>) -> Self {
        let filters = Filters::compile();
        let own_user = rustix::process::geteuid().as_raw();
        let owner_maps = Vec::new().into();
        Self { own_user, host_user, host_group, landlock_abi, filters, owner_maps }
    }

    /// The filter of init: it needs sockets, whatever its command may have.
    pub(crate) fn init_filter(&self) -> &[Instruction] {
        &self.filters.standard
    }

    /// The filter of a jail's command.
    pub(crate) fn filter(&self, spec: &Spec) -> &[Instruction] {
        match spec.profile {
            Profile::Strict => &self.filters.strict,
            Profile::Standard if sees_host_tree(spec) => &self.filters.without_unix,
            Profile::Standard => &self.filters.standard,
        }
    }

    /// Makes a jail. On failure nothing of it is left but a group that may need a moment more.
    pub(crate) fn bear(
        &self,
        driver: Option<&dyn Driver>,
        spec: Spec,
        descriptors: Vec<OwnedFd>,
    ) -> Result<Newborn, Stillborn> {
        let (group, enforced) = make_group(driver, &spec)
            .map_err(|fault| Stillborn { fault: Box::new(fault), group: None })?;
        match self.bear_into(group.as_ref(), spec, &descriptors, enforced) {
            Ok((pid, init)) => Ok(Newborn { pid, init, group }),
            Err(fault) => Err(Stillborn { fault: Box::new(fault), group: group.map(Box::new) }),
        }
    }

    fn bear_into(
        &self,
        group: Option<&Group>,
        spec: Spec,
        descriptors: &[OwnedFd],
        enforced: Vec<String>,
    ) -> Result<(Pid, OwnedFd), Fault> {
        let trees = self.trees(&spec)?;
        let (door, inner_door) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .at("make the door to init")?;
        let (birth_group, files): (Option<BorrowedFd<'_>>, &[OwnedFd]) =
            match group.map(|group| &group.entry) {
                Some(Entry::Birth(directory)) => (Some(directory.as_fd()), &[]),
                Some(Entry::Files(files)) => (None, files),
                None => (None, &[]),
            };
        let namespaces = Namespaces::USER
            .and(Namespaces::MOUNT)
            .and(Namespaces::PID)
            .and(Namespaces::NET)
            .and(Namespaces::IPC)
            .and(Namespaces::UTS);
        let birth = Birth { namespaces, cgroup: birth_group };
        // The kernel charges what a jail uses up (inotify watches, pending signals, …) to the owner
        // of its user namespace: that must not be root.
        self.act_as(self.host_user)?;
        let cloned = sys::clone3(&birth);
        if let Ok(Side::Child) = cloned {
            init::run(&inner_door, self);
        }
        self.act_as(self.own_user)?;
        let (pid, child) = match cloned.at("clone into new namespaces")? {
            Side::Child => init::run(&inner_door, self),
            Side::Parent { pid, child } => (pid, child),
        };
        drop(inner_door);
        let pid = Pid::from_raw(pid.cast_signed()).ok_or(rustix::io::Errno::SRCH).at("clone")?;
        let assignment = Assignment {
            trees: u32::try_from(trees.len()).unwrap_or_default(),
            cgroup_files: u32::try_from(files.len()).unwrap_or_default(),
            spec,
            enforced,
        };
        let all: Vec<BorrowedFd<'_>> =
            descriptors.iter().chain(&trees).chain(files).map(AsFd::as_fd).collect();
        let handed = map_ids(pid, self.host_user, self.host_group)
            .and_then(|()| wire::send(&door, &assignment, &all).at("hand over the assignment"));
        if let Err(fault) = handed {
            let _ = pidfd_send_signal(&child, Signal::KILL);
            let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
            return Err(fault);
        }
        Ok((pid, child))
    }

    /// Changes the effective user only. Capabilities stay: the launcher has told the kernel so.
    fn act_as(&self, user: u32) -> Result<(), Fault> {
        if self.host_user == self.own_user {
            return Ok(());
        }
        let user = rustix::thread::Uid::from_raw(user);
        rustix::thread::set_thread_res_uid(None, user, None).at("change the effective user")
    }

    /// Detached copies of the host directories a spec names: workspace, output, flavors.
    fn trees(&self, spec: &Spec) -> Result<Vec<OwnedFd>, Fault> {
        let mut trees = Vec::new();
        for tree in [&spec.workspace, &spec.output] {
            if let Tree::Host { path, access } = tree {
                trees.push(self.host_tree(path, *access)?);
            }
        }
        for (_, path) in &spec.flavors {
            trees.push(self.host_tree(path, Access::ReadOnly)?);
        }
        Ok(trees)
    }

    fn host_tree(&self, path: &Path, access: Access) -> Result<OwnedFd, Fault> {
        let tree = template::detached(path)?;
        let mut restrictions = MountAttributes::NO_SUID.and(MountAttributes::NO_DEVICES);
        if access == Access::ReadOnly {
            restrictions = restrictions.and(MountAttributes::READ_ONLY);
        }
        sys::restrict_mount(&tree, restrictions, Reach::One)
            .at(format!("restrict the mount of {}", path.display()))?;
        let owner = rustix::fs::fstat(&tree).at("look at a directory")?;
        if (owner.st_uid, owner.st_gid) != (self.host_user, self.host_group) {
            let map = self.owner_map(owner.st_uid, owner.st_gid)?;
            let mapped = sys::map_owner(&tree, &map);
            // Without the mapping a read-only tree still shows what all may read.
            if access == Access::ReadWrite {
                mapped.at(format!("give the jail's user the files of {}", path.display()))?;
            }
        }
        Ok(tree)
    }

    /// A user namespace that maps a directory's owner to the jails' user, for an id-mapped mount.
    fn owner_map(&self, user: u32, group: u32) -> Result<OwnedFd, Fault> {
        let mut maps = self.owner_maps.borrow_mut();
        if let Some((_, map)) = maps.iter().find(|(owner, _)| *owner == (user, group)) {
            return map.try_clone().at("copy a descriptor");
        }
        let birth = Birth { namespaces: Namespaces::USER, cgroup: None };
        let (pid, child) = match sys::clone3(&birth).at("clone into a user namespace")? {
            Side::Child => loop {
                // Holds the namespace until its parent has it, and has killed us.
                let _ = rustix::event::poll(&mut [], None);
            },
            Side::Parent { pid, child } => (pid, child),
        };
        let opened = write_map(pid, "uid_map", user, self.host_user)
            .and_then(|()| write_map(pid, "gid_map", group, self.host_group))
            .and_then(|()| {
                let path = format!("/proc/{pid}/ns/user");
                openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                    .at("open a user namespace")
            });
        let _ = pidfd_send_signal(&child, Signal::KILL);
        let _ = rustix::process::waitid(
            rustix::process::WaitId::PidFd(child.as_fd()),
            rustix::process::WaitIdOptions::EXITED,
        );
        let opened = opened?;
        if maps.len() == MAX_OWNER_MAPS {
            maps.remove(0);
        }
        maps.push(((user, group), opened.try_clone().at("copy a descriptor")?));
        Ok(opened)
    }
}

/// Makes the group, or says what is missing. A limit that was asked for and cannot be had is an
/// error, unless the caller said best effort.
fn make_group(
    driver: Option<&dyn Driver>,
    spec: &Spec,
) -> Result<(Option<Group>, Vec<String>), Fault> {
    let controllers = driver.map(Driver::controllers).unwrap_or_default();
    let mut enforced = Vec::new();
    for (name, present) in
        [("memory", controllers.memory), ("cpu", controllers.cpu), ("pids", controllers.pids)]
    {
        if present {
            enforced.push(name.to_owned());
        } else if spec.enforcement == Enforcement::Required {
            return Err(rustix::io::Errno::OPNOTSUPP).at(format!(
                "limit {name}: no cgroup with this controller is delegated here (run as root, or \
                 under `systemd-run --user --scope -p Delegate=yes`, or ask for best effort)"
            ));
        }
    }
    let group = driver.map(|driver| driver.create(&format!("jail-{}", spec.jail), &spec.limits));
    Ok((group.transpose()?, enforced))
}

/// Inside, there is one user and one group. What others own shows as nobody's.
fn map_ids(pid: Pid, host_user: u32, host_group: u32) -> Result<(), Fault> {
    let pid = pid.as_raw_nonzero().get().cast_unsigned();
    write_map(pid, "uid_map", USER_ID, host_user)?;
    write_map(pid, "gid_map", USER_ID, host_group)
}

fn write_map(pid: u32, file: &str, inside: u32, outside: u32) -> Result<(), Fault> {
    let step = || format!("write {file}");
    let mut opened =
        fs::File::options().write(true).open(format!("/proc/{pid}/{file}")).at(step())?;
    // One write: the kernel takes a map whole or not at all.
    opened.write_all(format!("{inside} {outside} 1\n").as_bytes()).at(step())
}
