//! What a launcher does once: namespaces of its own, the template, the cgroups of its jails.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::thread::{CapabilitiesSecureBits, set_capabilities_secure_bits};

use crate::birth::Birthplace;
use crate::cgroup::{self, Driver};
use crate::message::{At as _, Fault, Offers, Preparation, Reply};
use crate::{network, template, wire};

/// What a preparation makes.
pub(super) struct Ready {
    pub(super) children: OwnedFd,
    pub(super) birthplace: Birthplace,
    pub(super) driver: Option<Box<dyn Driver>>,
}

/// Makes everything ready, and says to the server what it is.
pub(super) fn make_ready(server: impl AsFd, preparation: &Preparation) -> Result<Ready, Fault> {
    let children = sys::child_signals().at("watch for children")?;
    sys::ignore_only_broken_pipes();
    // When the machine runs out of memory, jails go before anything else does.
    drop(fs::write("/proc/self/oom_score_adj", "500"));
    let root = rustix::process::geteuid().is_root();
    enter_namespaces(root)?;
    // What every jail's copy says.
    rustix::system::sethostname(b"jail").at("set the host name")?;
    rustix::system::setdomainname(b"(none)").at("set the domain name")?;
    let network = network::Home::settle(root)?;
    let namespaces = template::build(&preparation.hosts)?;
    let driver =
        cgroup::detect(Path::new(template::HOST), &preparation.instance, preparation.server_pid);
    let offers = offers(&driver, root);
    let birthplace = Birthplace::new(root, offers.landlock_abi, namespaces, network);
    if let Err(fault) = wire::send(server, &Reply::Prepared(offers), &[]).at("send") {
        // The server has gone already: nothing is left of what was made for it.
        if let Ok(driver) = &driver {
            driver.remove();
        }
        return Err(fault);
    }
    Ok(Ready { children, birthplace, driver: driver.ok() })
}

/// Moves the server's socket off descriptor 0, where a command would find it.
pub(super) fn take_standard_input() -> io::Result<OwnedFd> {
    let server = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    let null = fs::File::open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    Ok(server)
}

/// An ordinary user first becomes the owner of a user namespace, where mounting is allowed.
fn enter_namespaces(root: bool) -> Result<(), Fault> {
    if root {
        // A jail is born with another effective user, and that must not cost capabilities.
        set_capabilities_secure_bits(CapabilitiesSecureBits::NO_SETUID_FIXUP)
            .at("keep capabilities across a change of user")?;
        return sys::unshare(sys::Namespaces::MOUNT.and(sys::Namespaces::UTS))
            .at("make namespaces of mounts and names");
    }
    let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let all = sys::Namespaces::USER.and(sys::Namespaces::MOUNT).and(sys::Namespaces::UTS);
    sys::unshare(all).at("make a user namespace")?;
    fs::write("/proc/self/setgroups", "deny").at("write setgroups")?;
    fs::write("/proc/self/uid_map", format!("{user} {user} 1")).at("write uid_map")?;
    fs::write("/proc/self/gid_map", format!("{group} {group} 1")).at("write gid_map")
}

fn offers(driver: &Result<Box<dyn Driver>, Fault>, root: bool) -> Offers {
    let controllers = driver.as_ref().map(|driver| driver.controllers()).unwrap_or_default();
    Offers {
        cgroups: driver.as_ref().map(|d| d.name().to_owned()).map_err(ToString::to_string),
        memory: controllers.memory,
        cpu: controllers.cpu,
        pids: controllers.pids,
        io: controllers.io,
        landlock_abi: sys::landlock_abi(),
        root,
    }
}
