//! The pipes between a command and its owner.

use std::io;
use std::os::fd::OwnedFd;

use rustix::pipe::{PipeFlags, pipe_with};
use tokio::net::unix::pipe;

use crate::Stdin;

/// The owner's ends.
#[derive(Debug)]
pub struct Pipes {
    /// Present if it was asked for. Dropping it ends the command's input.
    pub stdin: Option<pipe::Sender>,
    pub stdout: pipe::Receiver,
    pub stderr: pipe::Receiver,
}

/// Opens three pipes; gives the command's ends, in the order of their numbers, and the owner's.
pub(crate) fn open(stdin: Stdin) -> io::Result<([OwnedFd; 3], Pipes)> {
    let (input, stdin) = match stdin {
        Stdin::Empty => (std::fs::File::open("/dev/null")?.into(), None),
        Stdin::Piped => {
            let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
            (read, Some(pipe::Sender::from_owned_fd(write)?))
        }
    };
    let (out, err) = (pipe_with(PipeFlags::CLOEXEC)?, pipe_with(PipeFlags::CLOEXEC)?);
    let ours = Pipes {
        stdin,
        stdout: pipe::Receiver::from_owned_fd(out.0)?,
        stderr: pipe::Receiver::from_owned_fd(err.0)?,
    };
    Ok(([input, out.1, err.1], ours))
}
