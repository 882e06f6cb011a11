//! The jail's network: `lo`, local routes, and the sockets that are handed out.
//!
//! There is no interface but `lo`. Where every address is made local, a program that dials
//! 203.0.113.7:443 reaches a listener of this jail bound to port 443, and the accepted socket's own
//! address is what it dialled. The listeners are served from outside; packets never leave.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::sockopt::{set_ipv6_v6only, set_socket_reuseaddr, socket_error};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, listen, recv, sendto,
    socket_with,
};

use super::attempts;
use crate::message::{At as _, Fault, Listener, Local, Network, Transport};
use mutation::{Protection, keeps};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 512;

/// Brings up what the spec asks for; gives the listeners in the order asked.
pub(super) fn build(network: &Network) -> Result<Vec<OwnedFd>, Fault> {
    if !keeps(Protection::NetworkNamespace) {
        return Ok(Vec::new());
    }
    if network.loopback {
        configure(&network.local)?;
    }
    let open = |asked: &Listener| match asked.transport {
        Transport::Attempts => {
            attempts::watch(&network.listeners).at("watch what reaches no listener")
        }
        Transport::Tcp | Transport::Udp => listener(asked),
    };
    network.listeners.iter().map(open).collect()
}

fn configure(local: &Local) -> Result<(), Fault> {
    // No protocol is NETLINK_ROUTE: its number is 0.
    let netlink = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)
        .at("open a netlink socket")?;
    request(&netlink, &link_up()).at("bring up the loopback interface")?;
    match local {
        Local::Loopback => Ok(()),
        Local::And(address) => request(&netlink, &local_route(Some(*address), address.is_ipv4()))
            .at(format!("make {address} local")),
        Local::Everything => {
            request(&netlink, &local_route(None, true)).at("make all IPv4 addresses local")?;
            match request(&netlink, &local_route(None, false)) {
                // A machine without IPv6: nothing to route.
                Err(Errno::AFNOSUPPORT | Errno::OPNOTSUPP | Errno::ACCESS) => Ok(()),
                other => other.at("make all IPv6 addresses local"),
            }
        }
    }
}

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

/// Binds one socket.
pub(super) fn listener(asked: &Listener) -> Result<OwnedFd, Fault> {
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

/// Sends one message and reads its acknowledgement.
fn request(netlink: &OwnedFd, message: &[u8]) -> Result<(), Errno> {
    sendto(netlink, message, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    let mut answer = [0_u8; 1024];
    let (_, length) = recv(netlink, &mut answer, RecvFlags::empty())?;
    // nlmsghdr is 16 bytes; an error message begins with the negative errno, 0 for success.
    let code = answer[..length].get(16..20).and_then(|bytes| bytes.try_into().ok());
    match code.map(i32::from_ne_bytes) {
        Some(0) => Ok(()),
        Some(negative) => Err(Errno::from_raw_os_error(-negative)),
        None => Err(Errno::PROTO),
    }
}

/// `RTM_NEWLINK` for interface 1, up.
fn link_up() -> Vec<u8> {
    const NEW_LINK: u16 = 16;
    const UP: u32 = 1;
    let mut body = vec![0, 0, 0, 0]; // family, padding, type
    body.extend(1_u32.to_ne_bytes()); // index of lo
    body.extend(UP.to_ne_bytes());
    body.extend(UP.to_ne_bytes()); // which flags change
    message(NEW_LINK, 0, &body)
}

/// `RTM_NEWROUTE` of type local over `lo`, for one address or for all of a family.
fn local_route(address: Option<IpAddr>, v4: bool) -> Vec<u8> {
    const NEW_ROUTE: u16 = 24;
    const CREATE_AND_REPLACE: u16 = 0x400 | 0x100;
    const TABLE_LOCAL: u8 = 255;
    const PROTOCOL_BOOT: u8 = 3;
    const SCOPE_HOST: u8 = 254;
    const TYPE_LOCAL: u8 = 2;
    const DESTINATION: u16 = 1;
    const INTERFACE: u16 = 4;
    let octets = match address {
        None => Vec::new(),
        Some(IpAddr::V4(address)) => address.octets().to_vec(),
        Some(IpAddr::V6(address)) => address.octets().to_vec(),
    };
    let family = if v4 { AddressFamily::INET } else { AddressFamily::INET6 };
    let family = u8::try_from(family.as_raw()).unwrap_or_default();
    let prefix = u8::try_from(octets.len() * 8).unwrap_or_default();
    let mut body =
        vec![family, prefix, 0, 0, TABLE_LOCAL, PROTOCOL_BOOT, SCOPE_HOST, TYPE_LOCAL, 0, 0, 0, 0];
    if !octets.is_empty() {
        attribute(&mut body, DESTINATION, &octets);
    }
    attribute(&mut body, INTERFACE, &1_u32.to_ne_bytes());
    message(NEW_ROUTE, CREATE_AND_REPLACE, &body)
}

/// `struct rtattr` and its value. All values here are multiples of four bytes.
fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(4 + value.len()).unwrap_or_default();
    body.extend(length.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
}

/// `struct nlmsghdr` and the body.
fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    const REQUEST_AND_ACK: u16 = 0x1 | 0x4;
    let length = u32::try_from(16 + body.len()).unwrap_or_default();
    let mut message = Vec::with_capacity(16 + body.len());
    message.extend(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend((REQUEST_AND_ACK | flags).to_ne_bytes());
    message.extend(1_u32.to_ne_bytes()); // sequence
    message.extend(0_u32.to_ne_bytes()); // port
    message.extend(body);
    message
}
