//! From a network to a spare, from a spare and a shape to a blank jail, and from a blank jail and a spec to one that
//! is about to run.

mod owners;
mod trees;

use std::borrow::Cow;
use std::cell::RefCell;
use std::fs;
use std::io::Write as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, Signal, pidfd_send_signal};
use sys::{Birth, Instruction, Namespaces, Side};

use crate::cgroup::{Driver, Group};
use crate::init::Inherited;
use crate::init::confine::LANDLOCK_STEP;
use crate::init::stage::Go;
use crate::message::{
    Assignment, At as _, Enforcement, Fault, Knock, Limits, Network, Profile, Spec, Standing, Work,
};
use crate::seccomp::{UnixSockets, filter};
use crate::shape::{FilterKind, Shape};
use crate::template::USER_ID;
use crate::uid_map::UidMap;
use crate::{fault, init, network, template, wire};
use mutation::{Protection, keeps};
use owners::Owners;

/// What every birth needs, made once.
pub(crate) struct Birthplace {
    own: Owner,
    root: bool,
    pub(crate) landlock_abi: Option<u32>,
    mounts: template::Namespaces,
    network: network::Home,
    filters: Filters,
    /// Host owners of directories that jails were given, for which user, and namespaces that map them.
    owner_maps: RefCell<Vec<(Mapping, OwnedFd)>>,
    owners: Owners,
}

/// A host user and group.
type Owner = (u32, u32);

/// Whose files are shown as whose.
type Mapping = (Owner, Owner);

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

/// A jail that is nobody's yet: its init waits to be told what it is for.
pub(crate) struct Blank {
    pub(crate) pid: Pid,
    pub(crate) init: OwnedFd,
    pub(crate) group: Option<Group>,
    pub(crate) door: OwnedFd,
    /// Where its stage hears of its command from us, if nothing is left to init.
    pub(crate) call: Option<OwnedFd>,
}

/// A jail without a shape: it can become one of any that has its network, and anybody's.
pub(crate) struct Spare {
    pub(crate) network: Network,
    pub(crate) pid: Pid,
    pub(crate) init: OwnedFd,
    pub(crate) group: Option<Group>,
    door: OwnedFd,
    call: OwnedFd,
}

/// A jail's init that was born, and how it is spoken to.
struct Newborn {
    pid: Pid,
    init: OwnedFd,
    door: OwnedFd,
    call: OwnedFd,
}

/// Why there is no jail, and a group that may need a moment before it can be removed.
pub(crate) struct Stillborn {
    pub(crate) fault: Fault,
    pub(crate) group: Option<Box<Group>>,
}

impl Birthplace {
    pub(crate) fn new(
        root: bool,
        landlock_abi: Option<u32>,
        mounts: template::Namespaces,
        network: network::Home,
    ) -> Self {
        let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        Self {
            own,
            root,
            landlock_abi,
            mounts,
            network,
            filters: Filters::compile(),
            owner_maps: RefCell::default(),
            owners: Owners::of(&UidMap::own()),
        }
    }

    /// The shape a spec asks for.
    pub(crate) fn shape(&self, spec: &Spec) -> Shape {
        // An ordinary user has nobody else to run jails as.
        Shape::of(spec, if self.root { spec.host_id } else { self.own.0 })
    }

    /// Host user and group of a shape's jails.
    fn owner(&self, shape: &Shape) -> Owner {
        if self.root { (shape.host_id, shape.host_id) } else { self.own }
    }

    /// The filter of a jail's commands.
    pub(crate) fn filter(&self, kind: FilterKind) -> &[Instruction] {
        match (kind.profile, kind.unix) {
            (Profile::Strict, _) => &self.filters.strict,
            (Profile::Standard, UnixSockets::Refused) => &self.filters.without_unix,
            (Profile::Standard, UnixSockets::Allowed) => &self.filters.standard,
        }
    }

    /// The filter of init, and with it the first of every further command: init itself needs sockets,
    /// whatever its commands may have.
    pub(crate) fn init_filter(&self, kind: FilterKind) -> &[Instruction] {
        self.filter(FilterKind { profile: Profile::Standard, ..kind })
    }

    /// Makes what a jail can have of which only the network is known. On failure nothing of it is left but a
    /// group that may need a moment more.
    pub(crate) fn spare(
        &self,
        driver: Option<&dyn Driver>,
        name: &str,
        network: &Network,
    ) -> Result<Spare, Stillborn> {
        let group = driver.map(|driver| driver.begin(name)).transpose();
        let mut group = group.map_err(|fault| Stillborn { fault, group: None })?;
        match self.bear(driver, group.as_mut(), network) {
            Ok(Newborn { pid, init, door, call }) => {
                Ok(Spare { network: network.clone(), pid, init, group, door, call })
            }
            Err(fault) => Err(Stillborn { fault, group: group.map(Box::new) }),
        }
    }

    fn bear(
        &self,
        driver: Option<&dyn Driver>,
        group: Option<&mut Group>,
        network: &Network,
    ) -> Result<Newborn, Fault> {
        let (door, inner_door) = sockets().at("make the door to init")?;
        let (call, inner_call) = sockets().at("make the stage's socket")?;
        let cgroup = group.as_ref().and_then(|group| group.birth.as_ref()).map(AsFd::as_fd);
        let birth = Birth { namespaces: namespaces(), cgroup };
        self.mounts.enter_nursery()?;
        let cloned =
            network::enter_new(network, self.mounts.has_own_proc()).and_then(|listeners| {
                // Without others it is ours, as an ordinary user's always is.
                self.act_as(self.owners.next().unwrap_or(self.own.0))?;
                fault::inject("clone")?;
                Ok((sys::clone3(&birth).at("clone into new namespaces")?, listeners))
            });
        let cloned = match cloned {
            Ok((Side::Child, listeners)) => {
                init::run(Inherited { door: inner_door, calls: inner_call, listeners }, self)
            }
            Ok((Side::Parent { pid, child }, _)) => Ok((pid, child)),
            Err(fault) => Err(fault),
        };
        // Whatever went wrong, the next jail is not to be born from here.
        let home = self.act_as(self.own.0).and(self.mounts.go_home());
        home.and(self.network.come_back())?;
        let (pid, init) = cloned?;
        let raised = Pid::from_raw(pid.cast_signed())
            .ok_or(rustix::io::Errno::SRCH)
            .at("clone")
            .and_then(|pid| {
                // While init begins its house, on another processor if there is one.
                let mut files = Vec::new();
                if let (Some(driver), Some(group)) = (driver, group) {
                    fault::inject("cgroup")?;
                    driver.complete(group)?;
                    files = std::mem::take(&mut group.join);
                }
                let files: Vec<_> = files.iter().map(AsFd::as_fd).collect();
                knock(&door, &Knock::Join, &files)?;
                Ok(pid)
            });
        match raised {
            Ok(pid) => Ok(Newborn { pid, init, door, call }),
            Err(fault) => {
                kill(&init);
                Err(fault)
            }
        }
    }

    /// Gives a spare its shape, the host user it runs as, and limits, which are those of its first jail if that is known,
    /// and likely ones if not. On failure it is dead.
    pub(crate) fn form(
        &self,
        driver: Option<&dyn Driver>,
        spare: Spare,
        shape: &Shape,
        limits: &Limits,
    ) -> Result<Blank, Stillborn> {
        let Spare { network: _, pid, init, mut group, door, call } = spare;
        let (user, group_id) = self.owner(shape);
        let formed = fault::inject("form").and_then(|()| {
            // It goes on at its own expense.
            if let (Some(driver), Some(group)) = (driver, &mut group) {
                driver.limit(group, limits)?;
            }
            map_ids(pid, user, group_id)?;
            knock(&door, &Knock::Form(Box::new(shape.clone())), &[])
        });
        if let Err(fault) = formed {
            kill(&init);
            return Err(Stillborn { fault, group: group.map(Box::new) });
        }
        Ok(Blank { pid, init, group, door, call: shape.is_whole().then_some(call) })
    }

    /// Gives a blank jail to somebody: limits, trees, command. On failure it is dead.
    pub(crate) fn assign(
        &self,
        driver: Option<&dyn Driver>,
        blank: &mut Blank,
        spec: &Spec,
        descriptors: &[OwnedFd],
        enforced: Vec<String>,
    ) -> Result<(), Fault> {
        let handed = self.trees(spec).and_then(|trees| {
            if let (Some(driver), Some(group)) = (driver, &mut blank.group) {
                group.jail = Some(spec.jail);
                fault::inject("limits")?;
                driver.limit(group, &spec.limits)?;
            }
            fault::inject("assign")?;
            let all: Vec<BorrowedFd<'_>> = std::iter::once(&blank.init)
                .chain(descriptors)
                .chain(&trees)
                .map(AsFd::as_fd)
                .collect();
            let pid = blank.pid.as_raw_nonzero().get().cast_unsigned();
            let place = blank.group.as_ref().map(|group| group.place.clone());
            let standing = wire::encode(&Standing { pid, place, enforced }).at("encode")?;
            let open_files = spec.limits.open_files;
            let assign = |work, descriptors: &[BorrowedFd<'_>]| {
                let assignment = Assignment { standing, open_files, work };
                knock(&blank.door, &Knock::Assign(assignment), descriptors)
            };
            let Some(call) = &blank.call else {
                return assign(Work::Given(Box::new(Cow::Borrowed(spec))), &all);
            };
            let (for_init, for_stage) = all.split_at(all.len().min(2));
            // Init first: it stands still, and shall find this when the stage has left.
            assign(Work::Told { command: spec.command.is_some() }, for_init)?;
            let command = spec.command.as_ref().map(Cow::Borrowed);
            let go = Go { command, open_files, code: spec.code.as_deref().map(Cow::Borrowed) };
            match wire::send(call, &go, for_stage) {
                // It has failed before, and init will say at what.
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
                other => other.at("tell the stage its command"),
            }
        });
        if handed.is_err() {
            kill(&blank.init);
        }
        handed
    }

    /// Changes the effective user only. Capabilities stay: the launcher has told the kernel so.
    fn act_as(&self, user: u32) -> Result<(), Fault> {
        if !self.root {
            return Ok(());
        }
        let user = rustix::thread::Uid::from_raw(user);
        rustix::thread::set_thread_res_uid(None, user, None).at("change the effective user")
    }
}

/// All of its own: user, mounts, processes, IPC, host name. The network is there already, and the cgroup
/// namespace is made later, by init, when it is in its group.
fn namespaces() -> Namespaces {
    let namespaces =
        Namespaces::USER.and(Namespaces::MOUNT).and(Namespaces::PID).and(Namespaces::UTS);
    if keeps(Protection::IpcNamespace) { namespaces.and(Namespaces::IPC) } else { namespaces }
}

fn knock(door: &OwnedFd, knock: &Knock<'_>, descriptors: &[BorrowedFd<'_>]) -> Result<(), Fault> {
    wire::send(door, knock, descriptors).at("speak to init")
}

/// Kills a child that is nobody's, and reaps it.
fn kill(child: &OwnedFd) {
    // An error means that it is dead already.
    let _ = pidfd_send_signal(child, Signal::KILL);
    let _ = rustix::process::waitid(
        rustix::process::WaitId::PidFd(child.as_fd()),
        rustix::process::WaitIdOptions::EXITED,
    );
}

fn sockets() -> rustix::io::Result<(OwnedFd, OwnedFd)> {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

/// What is in force when a jail is ready; an error if a limit or wall that was asked for cannot be had, unless
/// the caller said best effort.
pub(crate) fn in_force(
    driver: Option<&dyn Driver>,
    landlock_abi: Option<u32>,
    spec: &Spec,
) -> Result<Vec<String>, Fault> {
    if landlock_abi.is_none() && spec.enforcement == Enforcement::Required {
        return Err(rustix::io::Errno::OPNOTSUPP).at(LANDLOCK_STEP);
    }
    let controllers = driver.map(Driver::controllers).unwrap_or_default();
    let mut enforced = Vec::new();
    let io = spec.limits.io_bytes_per_second.is_some();
    for (name, present) in [
        ("memory", Some(controllers.memory)),
        ("cpu", Some(controllers.cpu)),
        ("pids", Some(controllers.pids)),
        ("io", io.then_some(controllers.io)),
    ] {
        match present {
            None => {}
            Some(true) => enforced.push(name.to_owned()),
            Some(false) if spec.enforcement == Enforcement::Required => {
                return Err(rustix::io::Errno::OPNOTSUPP).at(format!(
                    "limit {name}: no cgroup with this controller is delegated here (run as root, or \
                     under `systemd-run --user --scope -p Delegate=yes`, or go without it: best effort, `--best-effort`)"
                ));
            }
            Some(false) => {}
        }
    }
    enforced.push("namespaces".to_owned());
    enforced.extend(landlock_abi.map(|abi| format!("landlock-v{abi}")));
    enforced.extend(["no-capabilities", "seccomp"].map(str::to_owned));
    Ok(enforced)
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
