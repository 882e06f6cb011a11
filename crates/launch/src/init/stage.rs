//! The process that becomes the first command: born early, closed in early, and told late what it is.
//!
//! ```text
//!   all is there already    the stage shares init's memory, and init stands still (vfork) until it has
//!                           executed the command; the launcher tells it which
//!   something is to come    the stage is a copy of init, which tells it when that is attached
//! ```

use std::borrow::Cow;
use std::cell::Cell;
use std::fs::File;
use std::io::{self, Seek as _, copy};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use sys::{Forked, Stack};

use super::command::{
    AT_EXEC, AT_FILTER, AT_LANDLOCK, AT_STAGE, Outcome, Program, Streams, report,
};
use super::confine::{self, Behind, Walls};
use crate::Execution;
use crate::birth::Birthplace;
use crate::message::{At as _, Fault, Profile};
use crate::shape::Shape;
use crate::wire;

/// What the stage is told. Descriptors: the command's streams if there is one, then the code if any.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Go<'a> {
    /// Without one, the stage ends.
    pub(crate) command: Option<Cow<'a, Execution>>,
    pub(crate) open_files: u64,
    /// A file to put into the workspace before.
    pub(crate) code: Option<Cow<'a, str>>,
}

/// The stage, as init sees it.
pub(super) enum Stage {
    Waiting(Waiting),
    /// It has become the command the launcher told it, has failed to, or never heard.
    Left {
        pid: Pid,
        outcome: Outcome,
        heard: bool,
        socket: OwnedFd,
        stack: Stack,
    },
}

/// One that waits for init.
pub(super) struct Waiting {
    pid: Pid,
    socket: OwnedFd,
    outcome: Outcome,
}

/// Forks it. It waits, closed in but for what only the assignment can say.
pub(super) fn fork(shape: &Shape, birthplace: &Birthplace) -> Result<Stage, Fault> {
    let (socket, inner_socket) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .at("make the stage's socket")?;
    let (outcome, inner_outcome) = pipe_with(PipeFlags::CLOEXEC).at("make a pipe")?;
    match sys::fork().at("fork the stage")? {
        Forked::Child => {
            let behind = Behind::default();
            wait(&inner_socket, &inner_outcome, None, &Cell::new(false), behind, shape, birthplace)
        }
        Forked::Parent { pid } => {
            Ok(Stage::Waiting(Waiting { pid: number(pid)?, socket, outcome: Outcome(outcome) }))
        }
    }
}

/// Lends it init's memory. Returns when it has been told its command, has failed, or was sent away.
///
/// `workspace` is where the code goes, also where commands may not write.
pub(super) fn lend(
    socket: OwnedFd,
    workspace: Option<OwnedFd>,
    behind: Behind,
    shape: &Shape,
    birthplace: &Birthplace,
) -> Result<Stage, Fault> {
    let (outcome, inner_outcome) = pipe_with(PipeFlags::CLOEXEC).at("make a pipe")?;
    let way_in = workspace.as_ref().map(AsFd::as_fd);
    let heard = Cell::new(false);
    let mut stack = Stack::new();
    let pid = sys::vfork(&mut stack, || {
        wait(&socket, &inner_outcome, way_in, &heard, behind, shape, birthplace)
    })
    .at("fork the stage")?;
    let (pid, outcome, heard) = (number(pid)?, Outcome(outcome), heard.get());
    Ok(Stage::Left { pid, outcome, heard, socket, stack })
}

fn number(pid: u32) -> Result<Pid, Fault> {
    Pid::from_raw(pid.cast_signed()).ok_or(Errno::SRCH).at("fork")
}

impl Waiting {
    pub(super) fn pid(&self) -> Pid {
        self.pid
    }

    /// Tells it what to become.
    pub(super) fn go(self, go: &Go<'_>, streams: &[OwnedFd; 3]) -> Result<Outcome, Fault> {
        let lent: Vec<_> = streams.iter().map(AsFd::as_fd).collect();
        // One that is gone has said why.
        if let Err(fault) = wire::send(&self.socket, go, &lent).at("tell the stage its command") {
            self.outcome.read()?;
            return Err(fault);
        }
        Ok(self.outcome)
    }

    /// There is no first command.
    pub(super) fn dismiss(self) {
        let _ = kill_process(self.pid, Signal::KILL);
    }
}

fn wait(
    socket: &OwnedFd,
    outcome: &OwnedFd,
    workspace: Option<BorrowedFd<'_>>,
    heard: &Cell<bool>,
    behind: Behind,
    shape: &Shape,
    birthplace: &Birthplace,
) -> ! {
    let kept: Vec<_> = [socket.as_fd(), outcome.as_fd()].into_iter().chain(workspace).collect();
    // Otherwise it would outlive a dismissal by init's death only.
    let closed = sys::close_all_but(&kept)
        .at("close init's descriptors")
        // Commands of one jail are told apart by their sessions.
        .and_then(|()| rustix::process::setsid().at("begin a session"))
        .and_then(|_| confine::no_capabilities());
    let filter = birthplace.filter(shape.filter);
    // Under the strict one nothing more could be received.
    let strict = shape.filter.profile == Profile::Strict;
    let early = closed.and_then(|()| match (behind.filter, strict) {
        (true, _) => confine::confirm(),
        (false, true) => Ok(()),
        (false, false) => confine::filter(filter).and_then(|()| confine::confirm()),
    });
    if let Err(fault) = early {
        report(outcome, AT_FILTER, fault.errno);
        sys::exit(1);
    }
    let walls = (!behind.landlock).then(|| Walls::of(shape, birthplace.landlock_abi));
    let told = wire::receive::<Go<'_>>(socket);
    let (go, descriptors) = match told {
        Ok(Some(told)) => told,
        // Init or the launcher has gone: nobody asks.
        Ok(None) => sys::exit(1),
        Err(error) => fail(outcome, &error),
    };
    heard.set(true);
    let late = Late { walls: walls.as_ref(), filter: strict.then_some(filter) };
    become_command(&go, descriptors, workspace, &late, outcome)
}

/// What could not be put in force before.
struct Late<'a> {
    walls: Option<&'a Walls>,
    filter: Option<&'a [sys::Instruction]>,
}

fn become_command(
    go: &Go<'_>,
    mut descriptors: Vec<OwnedFd>,
    workspace: Option<BorrowedFd<'_>>,
    late: &Late<'_>,
    outcome: &OwnedFd,
) -> ! {
    if let (Some(name), Some(workspace)) = (&go.code, workspace) {
        let code = descriptors.pop().ok_or(Errno::BADF.into());
        if let Err(error) = code.and_then(|code| write_code(workspace, name, code)) {
            fail(outcome, &error);
        }
    }
    let Some(command) = &go.command else { sys::exit(0) };
    let program = match Program::new(command) {
        Ok(program) => program,
        Err(error) => fail(outcome, &error),
    };
    let staged = Streams::of(descriptors).and_then(|streams| streams.take_over(None));
    if let Err(error) = staged.and_then(|()| confine::open_files(go.open_files)) {
        fail(outcome, &error);
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

/// The workspace is new and only we can write to it, so no link can stand in the way.
pub(super) fn write_code(workspace: BorrowedFd<'_>, name: &str, code: OwnedFd) -> io::Result<()> {
    let mut code = File::from(code);
    code.rewind()?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let target = openat(workspace, name, flags, Mode::from_raw_mode(0o644))?;
    copy(&mut code, &mut File::from(target)).map(drop)
}

fn fail(outcome: &OwnedFd, error: &io::Error) -> ! {
    report(outcome, AT_STAGE, errno(error));
    sys::exit(1)
}

fn errno(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(Errno::IO.raw_os_error())
}
