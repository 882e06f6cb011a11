//! Messages with descriptors over a `SOCK_SEQPACKET` socket.
//!
//! A message is one packet. A longer one (with a long environment) travels in a memory file, as the first
//! descriptor of an empty packet.

use std::io::{self, IoSlice, IoSliceMut, Read as _, Seek as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::MAX_DESCRIPTORS;

/// Nearly all fit, and a reader has room for one without asking first how long it is.
const MAX_PACKET_BYTES: usize = 4 * 1024;

/// No message is longer: arguments and environment of one command.
const MAX_MESSAGE_BYTES: u64 = 8 * 1024 * 1024;

/// A message as it goes over the wire. Made apart from sending, so that sending can be tried again
/// when the socket is full.
#[derive(Debug)]
pub struct Packet {
    bytes: Vec<u8>,
    spilled: Option<OwnedFd>,
}

impl Packet {
    /// Encodes a message.
    pub fn new(message: &impl Serialize) -> io::Result<Self> {
        let bytes = encode(message)?;
        if bytes.len() <= MAX_PACKET_BYTES {
            return Ok(Self { bytes, spilled: None });
        }
        if bytes.len() as u64 > MAX_MESSAGE_BYTES {
            return Err(io::Error::new(
                io::ErrorKind::ArgumentListTooLong,
                "command, arguments and environment are too long",
            ));
        }
        let mut file = std::fs::File::from(memfd_create("message", MemfdFlags::CLOEXEC)?);
        file.write_all(&bytes)?;
        Ok(Self { bytes: Vec::new(), spilled: Some(file.into()) })
    }

    /// Sends the message with descriptors. `EAGAIN` on a full non-blocking socket.
    pub fn send(
        &self,
        socket: impl AsFd,
        descriptors: &[BorrowedFd<'_>],
    ) -> rustix::io::Result<()> {
        let all: Vec<BorrowedFd<'_>> =
            self.spilled.iter().map(AsFd::as_fd).chain(descriptors.iter().copied()).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !all.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&all)) {
            return Err(rustix::io::Errno::TOOBIG);
        }
        sendmsg(socket, &[IoSlice::new(&self.bytes)], &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }
}

/// Encodes and sends on a blocking socket.
pub fn send(
    socket: impl AsFd,
    message: &impl Serialize,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    Ok(Packet::new(message)?.send(socket, descriptors)?)
}

/// Receives one message; `None` when the other end is closed.
pub fn receive<M: DeserializeOwned>(socket: impl AsFd) -> io::Result<Option<(M, Vec<OwnedFd>)>> {
    let mut bytes = [0; MAX_PACKET_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        recvmsg(&socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)
    })?;
    let mut descriptors: Vec<OwnedFd> = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    if received.bytes > 0 {
        return decode(&bytes[..received.bytes]).map(|message| Some((message, descriptors)));
    }
    if descriptors.is_empty() {
        return Ok(None);
    }
    let spilled = read_spilled(descriptors.remove(0))?;
    decode(&spilled).map(|message| Some((message, descriptors)))
}

fn read_spilled(file: OwnedFd) -> io::Result<Vec<u8>> {
    let mut file = std::fs::File::from(file);
    file.rewind()?;
    let mut bytes = Vec::new();
    file.take(MAX_MESSAGE_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Encodes what a message carries without its reader's knowing it.
pub fn encode(message: &impl Serialize) -> io::Result<Vec<u8>> {
    // Most fit, and need not grow.
    postcard::to_extend(message, Vec::with_capacity(1024)).map_err(io::Error::other)
}

/// Decodes that.
pub fn decode<M: DeserializeOwned>(bytes: &[u8]) -> io::Result<M> {
    postcard::from_bytes(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Fault, Report};
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
    }

    fn fault(step: String) -> Report {
        Report::Failed(Fault { step, errno: 1 })
    }

    #[test]
    fn short_and_long_messages_arrive_whole_with_their_descriptors() {
        let (left, right) = pair();
        for length in [3, MAX_PACKET_BYTES + 1, 1024 * 1024] {
            send(&left, &fault("x".repeat(length)), &[left.as_fd()]).unwrap();
            let (report, descriptors) = receive::<Report>(&right).unwrap().unwrap();
            assert!(matches!(report, Report::Failed(Fault { step, .. }) if step.len() == length));
            assert_eq!(descriptors.len(), 1);
        }
    }

    #[test]
    fn a_closed_socket_is_the_end_and_garbage_is_an_error() {
        let (left, right) = pair();
        rustix::net::send(&left, &[0xff; 9], SendFlags::empty()).unwrap();
        assert!(receive::<Report>(&right).is_err());
        drop(left);
        assert!(receive::<Report>(&right).unwrap().is_none());
    }

    #[test]
    fn a_message_beyond_the_limit_is_refused_before_it_is_sent() {
        assert!(Packet::new(&fault("x".repeat(9 * 1024 * 1024))).is_err());
    }
}
