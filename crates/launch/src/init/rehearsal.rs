//! What a start does to memory, done once before.
//!
//! Init's memory is a copy of the launcher's, of which each page costs some 6 µs when it is first written to. What an assignment
//! takes from the heap, it takes from where something of its size was given back last. So a message like those
//! to come is sent, read and forgotten while the jail is nobody's.

use std::borrow::Cow;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::command::{Program, Streams};
use super::stage::Go;
use crate::Execution;
use crate::message::{Assignment, Command, Report, WORKSPACE, Work};
use crate::wire;

/// Variables of a command, about as many as one has.
const VARIABLES: usize = 8;

/// Bytes of a standing.
const STANDING_BYTES: usize = 512;

/// Goes through a start, unless one is waiting already; as far as it comes.
pub(super) fn rehearse(door: &OwnedFd) {
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    let waiting = poll(&mut [PollFd::new(door, PollFlags::IN)], Some(&at_once));
    if waiting.is_ok_and(|ready| ready == 0) {
        drop(play(door));
    }
}

fn play(any: &OwnedFd) -> io::Result<()> {
    let (here, there) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    let any = any.as_fd();
    let standing = || vec![0; STANDING_BYTES];
    let work = Work::Told { command: true };
    let assignment = Assignment { standing: standing(), open_files: 0, work };
    wire::send(&here, &assignment, &[any, any])?;
    let told = wire::receive::<Assignment<'_>>(&there)?;
    let command = Command {
        program: "/usr/bin/env".to_owned(),
        arguments: vec!["-c".to_owned(), "true".to_owned()],
        environment: vec![("VARIABLE".to_owned(), "/usr/bin:/bin".to_owned()); VARIABLES],
        directory: WORKSPACE.to_owned(),
    };
    let command = Execution::new(&command).map_err(io::Error::other)?;
    let go = Go { command: Some(Cow::Owned(command)), open_files: 0, code: None };
    wire::send(&here, &go, &[any, any, any])?;
    if let Some((Go { command: Some(command), .. }, descriptors)) = wire::receive::<Go<'_>>(&there)?
    {
        let streams = Streams::of(descriptors)?;
        let program = Program::new(&command)?;
        drop((streams, program));
    }
    // There is no program of this name; but from now on there is the page of who looks for one.
    drop(sys::exec(c"", &[], &[]));
    drop(told);
    let ready = Report::Ready { standing: standing(), not_executed: None, ended: None };
    wire::send(&here, &ready, &[any])
}
