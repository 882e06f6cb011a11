//! A socket that sees the first packet of what reaches no listener, so that it can be written down.
//!
//! Ports that policy does not name have no listener: the kernel answers with a reset or an ICMP error,
//! which is what a client should see, and nobody on the host would know. A packet socket on the
//! jail's `lo` takes copies of TCP's first packets and of UDP datagrams to such ports. It is made
//! by the launcher, which has the capability for it, and handed out; commands can make no such socket.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, Protocol, SocketFlags, SocketType, socket_with};
use sys::bpf::{
    AND, IF_EQUAL, JUMP, LOAD_BYTE, LOAD_BYTE_AT_X, LOAD_HALF_AT_X, LOAD_X, LOAD_X_HEADER, RETURN,
    SHIFT_RIGHT, branch, plain,
};
use sys::{Instruction, attach_filter};

use crate::message::{Listener, Transport};

/// `ETH_P_ALL` in network byte order.
const EVERYTHING: u32 = 0x0300;

pub(super) fn watch(listeners: &[Listener]) -> std::io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let protocol = NonZeroU32::new(EVERYTHING).map(Protocol::from_raw);
    let socket = socket_with(AddressFamily::PACKET, SocketType::DGRAM, flags, protocol)?;
    let served = |transport| -> BTreeSet<u16> {
        let of = listeners.iter().filter(|listener| listener.transport == transport);
        of.map(|listener| listener.address.port()).collect()
    };
    attach_filter(&socket, &filter(&served(Transport::Tcp), &served(Transport::Udp)))?;
    Ok(socket)
}

/// `SKF_AD_OFF + SKF_AD_PKTTYPE`
const PACKET_TYPE: u32 = 0xffff_f004;
const OUTGOING: u32 = 4;
/// Enough for the headers.
const SNAP: u32 = 128;

fn filter(tcp: &BTreeSet<u16>, udp: &BTreeSet<u16>) -> Vec<Instruction> {
    // Where a served port is met: the end.
    let drop = || plain(RETURN, 0);
    let unless_served = |ports: &BTreeSet<u16>| {
        let mut code = vec![plain(LOAD_HALF_AT_X, 2)];
        for port in ports {
            code.extend([branch(IF_EQUAL, u32::from(*port), 0, 1), drop()]);
        }
        code.push(plain(RETURN, SNAP));
        code
    };
    let mut of_tcp =
        vec![plain(LOAD_BYTE_AT_X, 13), plain(AND, 0x12), branch(IF_EQUAL, 0x02, 1, 0), drop()];
    of_tcp.extend(unless_served(tcp));
    let of_udp = unless_served(udp);
    // The accumulator holds the protocol, X the offset of the transport header.
    let mut transport = vec![branch(IF_EQUAL, 6, 0, 1), jump(3), branch(IF_EQUAL, 17, 0, 1)];
    transport.extend([jump(of_tcp.len() + 1), drop()]);
    transport.extend(of_tcp);
    transport.extend(of_udp);
    let v4 = [plain(LOAD_X_HEADER, 0), plain(LOAD_BYTE, 9)];
    let v6 = [plain(LOAD_X, 40), plain(LOAD_BYTE, 6)];
    let mut program = vec![
        plain(LOAD_BYTE, PACKET_TYPE),
        branch(IF_EQUAL, OUTGOING, 0, 1),
        drop(),
        plain(LOAD_BYTE, 0),
        plain(SHIFT_RIGHT, 4),
        branch(IF_EQUAL, 4, 0, 3),
    ];
    program.extend(v4);
    program.push(jump(4));
    program.extend([branch(IF_EQUAL, 6, 1, 0), drop()]);
    program.extend(v6);
    program.extend(transport);
    program
}

fn jump(instructions: usize) -> Instruction {
    plain(JUMP, u32::try_from(instructions).unwrap_or(u32::MAX))
}
