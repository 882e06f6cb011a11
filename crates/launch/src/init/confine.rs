//! What cannot be taken back: limits, Landlock, capabilities, the filter. Then a look whether all of
//! it is really in force.

use std::io;

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible as _, NetPort, PathBeneath, PathFd,
    Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetStatus,
};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, SecureComputingMode, capabilities,
    clear_ambient_capability_set, no_new_privs, remove_capability_from_bounding_set,
    secure_computing_mode, set_capabilities, set_capabilities_secure_bits, set_no_new_privs,
};
use sys::Instruction;

use crate::birth::Birthplace;
use crate::message::{Access as TreeAccess, At as _, Fault};
use crate::shape::Shape;
use mutation::{Protection, keeps};

pub(crate) const LANDLOCK_STEP: &str =
    "confine with Landlock (needs Linux 5.13 with `landlock` in the `lsm=` list)";

/// What Landlock leaves open.
#[derive(Debug, Clone)]
pub(super) struct Walls {
    /// Directories that may be written to. All may be read.
    writable: Vec<String>,
    /// The ports a jail may dial if it has no network but what is handed out; `None` if it has one.
    ports: Option<Vec<u16>>,
    /// The kernel's ABI; without one there are no walls.
    kernel: Option<u32>,
}

impl Walls {
    pub(super) fn of(shape: &Shape, kernel: Option<u32>) -> Self {
        let mut writable = vec!["/tmp", "/dev", "/home/agent", "/proc"];
        if shape.output.access == TreeAccess::ReadWrite {
            writable.push("/output");
        }
        if shape.workspace.access == TreeAccess::ReadWrite {
            writable.push("/workspace");
        }
        let network = &shape.network;
        let closed = !network.loopback || network.isolated;
        Self {
            writable: writable.into_iter().map(str::to_owned).collect(),
            ports: closed.then(|| network.listeners.iter().map(|l| l.address.port()).collect()),
            kernel,
        }
    }
}

/// Limits that are the same for every jail.
pub(super) fn resource_limits() -> Result<(), Fault> {
    if keeps(Protection::CoreLimit) {
        // Not 0: a limit of 1 also keeps the kernel from feeding a program that takes core dumps.
        setrlimit(Resource::Core, both(1)).at("forbid core dumps")?;
    }
    setrlimit(Resource::Sigpending, both(1024)).at("limit pending signals")?;
    setrlimit(Resource::Rtprio, both(0)).at("forbid real-time priority")?;
    setrlimit(Resource::Nice, both(0)).at("forbid raised priority")?;
    // Kernel queues are not in the memory limit of every kernel.
    setrlimit(Resource::Msgqueue, both(819_200)).at("limit message queues")?;
    setrlimit(Resource::Memlock, both(8 << 20)).at("limit locked memory")
}

pub(super) fn open_files(number: u64) -> io::Result<()> {
    if !keeps(Protection::FileLimits) {
        return Ok(());
    }
    Ok(setrlimit(Resource::Nofile, both(number))?)
}

fn both(n: u64) -> Rlimit {
    Rlimit { current: Some(n), maximum: Some(n) }
}

pub(super) fn no_new_privileges() -> Result<(), Fault> {
    if !keeps(Protection::NoNewPrivileges) {
        return Ok(());
    }
    set_no_new_privs(true).at("set no_new_privs")
}

/// What of the first command's walls a process stands behind, and so all that it starts.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Behind {
    pub(super) filter: bool,
    pub(super) landlock: bool,
}

impl Behind {
    /// Has init go behind the filter. What it takes down with it when it ends, no command has to.
    pub(super) fn filter(&mut self, shape: &Shape, birthplace: &Birthplace) -> Result<(), Fault> {
        if !self.filter {
            filter(birthplace.init_filter(shape.filter))?;
            self.filter = true;
        }
        Ok(())
    }

    /// Has it go behind Landlock.
    pub(super) fn landlock(&mut self, shape: &Shape, birthplace: &Birthplace) -> Result<(), Fault> {
        if !self.landlock {
            landlock(&Walls::of(shape, birthplace.landlock_abi))?;
            self.landlock = true;
        }
        Ok(())
    }
}

/// Installs a filter, on top of those there are.
pub(super) fn filter(program: &[Instruction]) -> Result<(), Fault> {
    crate::fault::inject("filter")?;
    if !keeps(Protection::Seccomp) {
        return Ok(());
    }
    sys::install_filter(program).at("install the seccomp filter")
}

/// Looks whether everything is in force.
pub(super) fn confirm() -> Result<(), Fault> {
    let held = capabilities(None).at("look at the capabilities")?;
    let none =
        held.effective.is_empty() && held.permitted.is_empty() && held.inheritable.is_empty();
    let filtered = secure_computing_mode().at("look at the filter")? == SecureComputingMode::Filter;
    let no_more = no_new_privs().at("look at no_new_privs")?;
    let asked_for = [Protection::Capabilities, Protection::Seccomp, Protection::NoNewPrivileges];
    if (none && filtered && no_more) || !asked_for.into_iter().all(keeps) {
        return Ok(());
    }
    Err(Errno::PERM).at("confirm that the jail is closed")
}

/// A second wall under the mount namespace: reading anywhere, writing only where it is meant.
///
/// There is one ruleset and no other: a second one that knows nothing of files, such as one that scopes signals,
/// would forbid every link and rename from one directory to another, because each ruleset must allow those.
/// Signals and abstract sockets end at the PID and network namespaces anyway.
pub(super) fn landlock(walls: &Walls) -> Result<(), Fault> {
    crate::fault::inject("landlock")?;
    if !keeps(Protection::Landlock) {
        return Ok(());
    }
    let Some(kernel) = walls.kernel else { return Ok(()) };
    let fault = |_| Fault { step: LANDLOCK_STEP.to_owned(), errno: Errno::PERM.raw_os_error() };
    match restrict(walls, kernel).map_err(fault)? {
        RulesetStatus::FullyEnforced => Ok(()),
        RulesetStatus::PartiallyEnforced | RulesetStatus::NotEnforced => {
            Err(Errno::OPNOTSUPP).at(LANDLOCK_STEP)
        }
    }
}

fn restrict(walls: &Walls, kernel: u32) -> Result<RulesetStatus, Box<dyn std::error::Error>> {
    let abi = abi(kernel);
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(abi))?;
    let ports = walls.ports.as_ref().filter(|_| kernel >= 4);
    if ports.is_some() {
        ruleset = ruleset.handle_access(AccessNet::from_all(abi))?;
    }
    let mut ruleset = ruleset
        .create()?
        .add_rule(PathBeneath::new(PathFd::new("/")?, AccessFs::from_read(abi)))?;
    for path in &walls.writable {
        ruleset =
            ruleset.add_rule(PathBeneath::new(PathFd::new(path)?, AccessFs::from_all(abi)))?;
    }
    for port in ports.into_iter().flatten() {
        ruleset = ruleset.add_rule(NetPort::new(*port, AccessNet::ConnectTcp))?;
    }
    Ok(ruleset.restrict_self()?.ruleset)
}

fn abi(kernel: u32) -> ABI {
    match kernel {
        0 | 1 => ABI::V1,
        2 => ABI::V2,
        3 => ABI::V3,
        4 => ABI::V4,
        5 => ABI::V5,
        _ => ABI::V6,
    }
}

/// What no child will ever hold again. Takes a while, and nothing from init.
pub(super) fn empty_bounding_set() -> Result<(), Fault> {
    if !keeps(Protection::Capabilities) {
        return Ok(());
    }
    clear_ambient_capability_set().at("clear the ambient capabilities")?;
    for bit in 0..64 {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        match remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // The first number the kernel does not know is past the last capability.
            Err(rustix::io::Errno::INVAL) if bit > 0 => break,
            Err(error) => return Err(error).at("empty the capability bounding set"),
        }
    }
    let locked = CapabilitiesSecureBits::NO_ROOT
        | CapabilitiesSecureBits::NO_ROOT_LOCKED
        | CapabilitiesSecureBits::NO_SETUID_FIXUP
        | CapabilitiesSecureBits::NO_SETUID_FIXUP_LOCKED
        | CapabilitiesSecureBits::KEEP_CAPS_LOCKED
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED;
    set_capabilities_secure_bits(locked).at("lock the secure bits")
}

/// Gives up those held.
pub(super) fn no_capabilities() -> Result<(), Fault> {
    if !keeps(Protection::Capabilities) {
        return Ok(());
    }
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, none).at("drop all capabilities")
}
