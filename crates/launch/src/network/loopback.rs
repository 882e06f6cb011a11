//! What netlink is told: `lo` up, addresses local.

use std::net::IpAddr;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with,
};

use crate::message::{At as _, Fault, Local};

pub(super) fn configure(local: &Local) -> Result<(), Fault> {
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
