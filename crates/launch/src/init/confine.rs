//! What cannot be taken back: limits, Landlock, capabilities, the filter. Then a look whether all of
//! it is really in force.

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible as _, NetPort, PathBeneath, PathFd,
    Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetStatus, Scope,
};
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, SecureComputingMode, capabilities,
    clear_ambient_capability_set, no_new_privs, remove_capability_from_bounding_set,
    secure_computing_mode, set_capabilities, set_capabilities_secure_bits, set_no_new_privs,
};
use sys::Instruction;

use crate::birth::Birthplace;
use crate::message::{Access as TreeAccess, At as _, Enforcement, Fault, Spec};

/// Everything but the filter. Adds to `enforced` what is in force.
pub(super) fn confine(
    spec: &Spec,
    birthplace: &Birthplace,
    enforced: &mut Vec<String>,
) -> Result<(), Fault> {
    enforced.push("namespaces".to_owned());
    resource_limits(spec)?;
    set_no_new_privs(true).at("set no_new_privs")?;
    match landlock(spec, birthplace.landlock_abi) {
        Ok(abi) => enforced.push(format!("landlock-v{abi}")),
        Err(_) if spec.enforcement == Enforcement::BestEffort => {}
        Err(fault) => return Err(fault),
    }
    no_capabilities()?;
    enforced.push("no-capabilities".to_owned());
    enforced.push("seccomp".to_owned());
    Ok(())
}

/// Installs the filter and checks that it holds, with everything else.
pub(super) fn filter(program: &[Instruction]) -> Result<(), Fault> {
    sys::install_filter(program).at("install the seccomp filter")?;
    let held = capabilities(None).at("look at the capabilities")?;
    let none =
        held.effective.is_empty() && held.permitted.is_empty() && held.inheritable.is_empty();
    let filtered = secure_computing_mode().at("look at the filter")? == SecureComputingMode::Filter;
    if none && filtered && no_new_privs().at("look at no_new_privs")? {
        return Ok(());
    }
    Err(rustix::io::Errno::PERM).at("confirm that the jail is closed")
}

fn resource_limits(spec: &Spec) -> Result<(), Fault> {
    let both = |n| Rlimit { current: Some(n), maximum: Some(n) };
    let open_files = both(spec.limits.open_files);
    setrlimit(Resource::Nofile, open_files).at("limit open files")?;
    // Not 0: a limit of 1 also keeps the kernel from feeding a program that takes core dumps.
    setrlimit(Resource::Core, both(1)).at("forbid core dumps")?;
    setrlimit(Resource::Sigpending, both(1024)).at("limit pending signals")?;
    setrlimit(Resource::Rtprio, both(0)).at("forbid real-time priority")?;
    setrlimit(Resource::Nice, both(0)).at("forbid raised priority")?;
    // Kernel queues are not in the memory limit of every kernel.
    setrlimit(Resource::Msgqueue, both(819_200)).at("limit message queues")?;
    setrlimit(Resource::Memlock, both(8 << 20)).at("limit locked memory")
}

/// A second wall under the mount namespace: reading anywhere, writing only where it is meant.
fn landlock(spec: &Spec, kernel: Option<u32>) -> Result<u32, Fault> {
    let step = "confine with Landlock (needs Linux 5.13 with `landlock` in the `lsm=` list)";
    let Some(kernel) = kernel else {
        return Err(rustix::io::Errno::OPNOTSUPP).at(step);
    };
    let fault = |_| Fault { step: step.to_owned(), errno: rustix::io::Errno::PERM.raw_os_error() };
    restrict(spec, kernel).map_err(fault).and_then(|status| match status {
        RulesetStatus::FullyEnforced => Ok(kernel),
        RulesetStatus::PartiallyEnforced | RulesetStatus::NotEnforced => {
            Err(rustix::io::Errno::OPNOTSUPP).at(step)
        }
    })
}

fn restrict(spec: &Spec, kernel: u32) -> Result<RulesetStatus, Box<dyn std::error::Error>> {
    let abi = abi(kernel);
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(abi))?;
    if kernel >= 6 {
        ruleset = ruleset.scope(Scope::from_all(abi))?;
    }
    // In a jail without a network of any kind, TCP goes to the handed-out ports or nowhere.
    let ports = closed_network_ports(spec).filter(|_| kernel >= 4);
    if ports.is_some() {
        ruleset = ruleset.handle_access(AccessNet::from_all(abi))?;
    }
    let mut ruleset = ruleset
        .create()?
        .add_rule(PathBeneath::new(PathFd::new("/")?, AccessFs::from_read(abi)))?;
    let mut writable = vec!["/tmp", "/dev", "/home/agent", "/proc"];
    if spec.output.access() == TreeAccess::ReadWrite {
        writable.push("/output");
    }
    if spec.workspace.access() == TreeAccess::ReadWrite {
        writable.push("/workspace");
    }
    for path in writable {
        ruleset =
            ruleset.add_rule(PathBeneath::new(PathFd::new(path)?, AccessFs::from_all(abi)))?;
    }
    for port in ports.into_iter().flatten() {
        ruleset = ruleset.add_rule(NetPort::new(port, AccessNet::ConnectTcp))?;
    }
    Ok(ruleset.restrict_self()?.ruleset)
}

/// The ports a jail may dial if it has no network but what is handed out; `None` if it has one.
fn closed_network_ports(spec: &Spec) -> Option<Vec<u16>> {
    let network = &spec.network;
    let closed = !network.loopback || network.isolated;
    closed.then(|| network.listeners.iter().map(|listener| listener.address.port()).collect())
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

fn no_capabilities() -> Result<(), Fault> {
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
    set_capabilities_secure_bits(locked).at("lock the secure bits")?;
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, none).at("drop all capabilities")
}
