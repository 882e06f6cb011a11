//! Ways in for the fuzzer.

use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, socketpair};

use crate::message::{Knock, Order, Reply, Report, Request};
use crate::wire;

/// A message as it arrives: every reader makes a message or an error of it.
///
/// # Panics
///
/// If there are no sockets.
pub fn message(bytes: &[u8]) {
    fn read<M: serde::de::DeserializeOwned>(bytes: &[u8]) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None);
        let (ours, theirs): (OwnedFd, OwnedFd) = pair.expect("a pair of sockets");
        if rustix::net::send(&ours, bytes, SendFlags::NOSIGNAL).is_ok() {
            drop(wire::receive::<M>(&theirs));
        }
    }
    read::<Request>(bytes);
    read::<Reply>(bytes);
    read::<Knock<'_>>(bytes);
    read::<Order>(bytes);
    read::<Report>(bytes);
}
