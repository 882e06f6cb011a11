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

/// What a command's streams are made of. Nobody watches it yet, so it can be made before it is needed.
#[derive(Debug)]
pub(crate) struct Ends {
    null: OwnedFd,
    out: (OwnedFd, OwnedFd),
    err: (OwnedFd, OwnedFd),
}

impl Ends {
    pub(crate) fn new() -> io::Result<Self> {
        // One of its own: who shares an open file shares its flags.
        let null = std::fs::File::open("/dev/null")?.into();
        let (out, err) = (pipe_with(PipeFlags::CLOEXEC)?, pipe_with(PipeFlags::CLOEXEC)?);
        Ok(Self { null, out, err })
    }

    /// Gives the command's ends, in the order of their numbers, and the owner's.
    pub(crate) fn open(self, stdin: Stdin) -> io::Result<([OwnedFd; 3], Pipes)> {
        let Self { null, out, err } = self;
        let (input, stdin) = match stdin {
            Stdin::Empty => (null, None),
            Stdin::Piped => {
                let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
                (read, Some(pipe::Sender::from_owned_fd(write)?))
            }
        };
        let ours = Pipes {
            stdin,
            stdout: pipe::Receiver::from_owned_fd(out.0)?,
            stderr: pipe::Receiver::from_owned_fd(err.0)?,
        };
        Ok(([input, out.1, err.1], ours))
    }
}
