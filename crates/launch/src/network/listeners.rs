//! Sockets that are bound inside a jail and served outside.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::sockopt::{set_ipv6_v6only, set_socket_reuseaddr};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with};

use crate::message::{At as _, Fault, Listener, Transport};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 512;

/// Binds one socket.
pub(crate) fn listener(asked: &Listener) -> Result<OwnedFd, Fault> {
    let step = || format!("listen on {:?} {}", asked.transport, asked.address);
    let made = open(asked).and_then(|(socket, address)| {
        set_socket_reuseaddr(&socket, true)?;
        bind(&socket, &address)?;
        if asked.transport == Transport::Tcp {
            listen(&socket, BACKLOG)?;
        }
        Ok(socket)
    });
    made.at(step())
}

/// A socket for an address, and the address to bind. `[::]` takes IPv4 as well, or only that on a
/// machine without IPv6.
fn open(asked: &Listener) -> Result<(OwnedFd, SocketAddr), Errno> {
    let kind = match asked.transport {
        Transport::Tcp => SocketType::STREAM,
        Transport::Udp => SocketType::DGRAM,
        Transport::Attempts => return Err(Errno::OPNOTSUPP),
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    match asked.address.ip() {
        IpAddr::V4(_) => Ok((socket_with(AddressFamily::INET, kind, flags, None)?, asked.address)),
        IpAddr::V6(address) => match socket_with(AddressFamily::INET6, kind, flags, None) {
            Ok(socket) => {
                set_ipv6_v6only(&socket, address != Ipv6Addr::UNSPECIFIED)?;
                Ok((socket, asked.address))
            }
            Err(Errno::AFNOSUPPORT) if address.is_unspecified() => {
                let any = SocketAddrV4::new([0, 0, 0, 0].into(), asked.address.port());
                Ok((socket_with(AddressFamily::INET, kind, flags, None)?, any.into()))
            }
            Err(error) => Err(error),
        },
    }
}
