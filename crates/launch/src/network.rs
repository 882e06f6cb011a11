//! A jail's network namespace: `lo`, local routes, and the sockets that are handed out.
//!
//! There is no interface but `lo`. Where every address is made local, a program that dials
//! 203.0.113.7:443 reaches a listener of this jail bound to port 443, and the accepted socket's own
//! address is what it dialled. The listeners are served from outside; packets never leave.
//!
//! The launcher makes the namespace, goes in, and bears the jail there. So it belongs to the launcher's
//! user namespace: nobody inside, init included, ever has a capability over it. And it can be made before
//! it is known for whom, which is worth it: it is the dearest of all namespaces, 0.6 ms.

mod attempts;
mod listeners;
mod loopback;

use std::fs;
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::fault;
use crate::message::{At as _, Fault, Listener, Network, Transport};
use mutation::{Protection, keeps};

pub(crate) use listeners::listener;

/// Queued bytes of TCP are not in the memory limit of cgroup v1.
const TCP_BUFFERS: [&str; 2] = ["net/ipv4/tcp_rmem", "net/ipv4/tcp_wmem"];
const TCP_BUFFER_BYTES: &str = "4096 65536 524288";

/// Where the launcher comes back to from a jail's network; nowhere, if jails have none of their own.
pub(crate) struct Home(Option<OwnedFd>);

impl Home {
    /// The launcher's own namespace. An ordinary user could not come back into the machine's, nor could root in a container
    /// that has it: they go into an empty one for good.
    pub(crate) fn settle(root: bool) -> Result<Self, Fault> {
        if !keeps(Protection::NetworkNamespace) {
            return Ok(Self(None));
        }
        if !root || go_into(&own()?).is_err() {
            sys::unshare(sys::Namespaces::NET).at("make the launcher's network namespace")?;
        }
        own().map(|own| Self(Some(own)))
    }

    pub(crate) fn come_back(&self) -> Result<(), Fault> {
        self.0.as_ref().map_or(Ok(()), go_into)
    }
}

/// Makes a namespace as asked and goes into it; gives the listeners in the order asked.
///
/// `tunable` says whether `/proc/sys` of this mount namespace is there to be written to. On an error, this
/// process may be in a namespace that is half made.
pub(crate) fn enter_new(network: &Network, tunable: bool) -> Result<Vec<OwnedFd>, Fault> {
    fault::inject("network")?;
    if !keeps(Protection::NetworkNamespace) {
        return Ok(Vec::new());
    }
    sys::unshare(sys::Namespaces::NET).at("make a network namespace")?;
    if network.loopback {
        loopback::configure(&network.local)?;
        for name in TCP_BUFFERS.into_iter().filter(|_| tunable) {
            let step = || format!("set {name} of a network");
            fs::write(format!("/proc/sys/{name}"), TCP_BUFFER_BYTES).at(step())?;
        }
    }
    let open = |asked: &Listener| match asked.transport {
        Transport::Attempts => {
            attempts::watch(&network.listeners).at("watch what reaches no listener")
        }
        Transport::Tcp | Transport::Udp => listener(asked),
    };
    network.listeners.iter().map(open).collect()
}

fn own() -> Result<OwnedFd, Fault> {
    openat(CWD, "/proc/self/ns/net", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .at("open the network namespace")
}

fn go_into(namespace: &OwnedFd) -> Result<(), Fault> {
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
        .at("enter a network namespace")
}
