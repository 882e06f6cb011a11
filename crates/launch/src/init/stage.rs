//! The process that becomes the first command: born early, closed in early, and told late what it is.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use sys::Forked;

use super::command::{
    AT_EXEC, AT_FILTER, AT_LANDLOCK, AT_STAGE, Outcome, Program, Streams, report,
};
use super::confine::{self, Walls};
use crate::birth::Birthplace;
use crate::message::{At as _, Command, Fault, Profile};
use crate::shape::Shape;
use crate::{fault, wire};

/// What the stage is told.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Go {
    pub(super) command: Command,
    pub(super) open_files: u64,
}

/// The stage, as init sees it.
pub(super) struct Stage {
    pid: Pid,
    socket: OwnedFd,
    outcome: OwnedFd,
}

/// Forks it. It waits, closed in but for what only the assignment can say.
pub(super) fn fork(shape: &Shape, birthplace: &Birthplace) -> Result<Stage, Fault> {
    let (socket, inner_socket) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .at("make the stage's socket")?;
    let (outcome, inner_outcome) = pipe_with(PipeFlags::CLOEXEC).at("make a pipe")?;
    match sys::fork().at("fork the stage")? {
        Forked::Child => wait(&inner_socket, &inner_outcome, shape, birthplace),
        Forked::Parent { pid } => {
            let pid = Pid::from_raw(pid.cast_signed()).ok_or(Errno::SRCH).at("fork")?;
            Ok(Stage { pid, socket, outcome })
        }
    }
}

impl Stage {
    pub(super) fn pid(&self) -> Pid {
        self.pid
    }

    /// Tells it what to become.
    pub(super) fn go(self, go: &Go, streams: &[OwnedFd; 3]) -> Result<Outcome, Fault> {
        let lent: Vec<_> = streams.iter().map(AsFd::as_fd).collect();
        // One that is gone has said why.
        let sent = wire::send(&self.socket, go, &lent).at("tell the stage its command");
        let outcome = Outcome(self.outcome);
        if let Err(fault) = sent {
            outcome.read()?;
            return Err(fault);
        }
        Ok(outcome)
    }

    /// There is no first command.
    pub(super) fn dismiss(self) {
        let _ = kill_process(self.pid, Signal::KILL);
    }
}

fn wait(socket: &OwnedFd, outcome: &OwnedFd, shape: &Shape, birthplace: &Birthplace) -> ! {
    // Otherwise it would outlive a dismissal by init's death only.
    let closed = sys::close_all_but(&[socket.as_fd(), outcome.as_fd()])
        .at("close init's descriptors")
        .and_then(|()| confine::no_capabilities());
    let filter = birthplace.filter(shape.filter);
    // Under the strict one nothing more could be received.
    let strict = shape.filter.profile == Profile::Strict;
    let walls = Walls::of(shape, birthplace.landlock_abi);
    let early = closed.and_then(|()| fault::inject("filter")).and_then(|()| {
        if strict { Ok(()) } else { confine::filter(filter).and_then(|()| confine::confirm()) }
    });
    if let Err(fault) = early {
        report(outcome, AT_FILTER, fault.errno);
        sys::exit(1);
    }
    // What is brought in later needs rules of its own.
    let whole = shape.is_whole();
    if whole && let Err(fault) = confine::landlock(&walls) {
        report(outcome, AT_LANDLOCK, fault.errno);
        sys::exit(1);
    }
    let told = wire::receive::<Go>(socket);
    let (go, descriptors) = match told {
        Ok(Some(told)) => told,
        // Init has gone, or sends us away: nobody asks.
        Ok(None) => sys::exit(1),
        Err(error) => {
            report(outcome, AT_STAGE, error.raw_os_error().unwrap_or(Errno::IO.raw_os_error()));
            sys::exit(1)
        }
    };
    let late = Late { walls: (!whole).then_some(&walls), filter: strict.then_some(filter) };
    become_command(&go, descriptors, &late, outcome)
}

/// What could not be put in force before.
struct Late<'a> {
    walls: Option<&'a Walls>,
    filter: Option<&'a [sys::Instruction]>,
}

fn become_command(go: &Go, descriptors: Vec<OwnedFd>, late: &Late<'_>, outcome: &OwnedFd) -> ! {
    let errno = |error: &io::Error| error.raw_os_error().unwrap_or(Errno::IO.raw_os_error());
    let program = match Program::new(&go.command) {
        Ok(program) => program,
        Err(error) => {
            report(outcome, AT_STAGE, errno(&error));
            sys::exit(1);
        }
    };
    let staged = Streams::of(descriptors).and_then(|streams| streams.take_over(None));
    if let Err(error) = staged.and_then(|()| confine::open_files(go.open_files)) {
        report(outcome, AT_STAGE, errno(&error));
        sys::exit(1);
    }
    if let Some(Err(fault)) = late.walls.map(confine::landlock) {
        report(outcome, AT_LANDLOCK, fault.errno);
        sys::exit(1);
    }
    let filtered = |filter| confine::filter(filter).and_then(|()| confine::confirm());
    if let Some(Err(fault)) = late.filter.map(filtered) {
        report(outcome, AT_FILTER, fault.errno);
        sys::exit(1);
    }
    let error = program.execute();
    report(outcome, AT_EXEC, errno(&error));
    program.say_not_executed(&error)
}
