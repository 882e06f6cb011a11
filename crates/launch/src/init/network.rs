//! Connections into the jail.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::sockopt::socket_error;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

/// Begins to connect to a port of the jail itself; it may still be connecting when it is given.
pub(super) fn connect(port: u16) -> Result<OwnedFd, Errno> {
    match connect_to(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)) {
        // Nobody there for IPv4: what listens on `::1` only shall be found, too.
        Err(Errno::CONNREFUSED) => connect_to(SocketAddr::new(Ipv6Addr::LOCALHOST.into(), port))
            .map_err(|_| Errno::CONNREFUSED),
        other => other,
    }
}

fn connect_to(address: SocketAddr) -> Result<OwnedFd, Errno> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&socket, &address) {
        // On `lo` a refusal is there as soon as the call returns.
        Ok(()) | Err(Errno::INPROGRESS) => socket_error(&socket)?.map(|()| socket),
        Err(error) => Err(error),
    }
}
