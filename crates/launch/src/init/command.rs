//! A command: what `execve` takes, and how a child becomes it.

use std::borrow::Cow;
use std::ffi::CStr;
use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;

use crate::Execution;
use crate::message::Fault;
use mutation::{Protection, keeps};

/// Exit codes of a shell for a command that is not there, and for one that cannot be run.
const NOT_FOUND: i32 = 127;
const NOT_EXECUTABLE: i32 = 126;

/// What failed between fork and `exec`.
pub(super) const AT_STAGE: u8 = 1;
pub(super) const AT_FILTER: u8 = 2;
pub(super) const AT_LANDLOCK: u8 = 3;
pub(super) const AT_EXEC: u8 = 4;

/// How a birth went: a pipe that a successful `exec` closes, and that carries what failed otherwise.
pub(super) struct Outcome(pub(super) OwnedFd);

impl Outcome {
    /// Waits until the command runs; the errno if it could not be executed (it exits then as a
    /// shell would say), an error if it was not confined.
    pub(super) fn read(&self) -> Result<Option<i32>, Fault> {
        let mut said = [0; 5];
        let length = rustix::io::retry_on_intr(|| rustix::io::read(&self.0, &mut said));
        let (step, errno) = match length {
            Ok(0) => return Ok(None),
            Ok(5) => (said[0], i32::from_ne_bytes([said[1], said[2], said[3], said[4]])),
            Ok(_) => (0, Errno::IO.raw_os_error()),
            Err(error) => (0, error.raw_os_error()),
        };
        let step = match step {
            AT_EXEC => return Ok(Some(errno)),
            AT_FILTER => "install the seccomp filter",
            AT_LANDLOCK => confine_step(errno),
            AT_STAGE => "prepare the command's streams and directory",
            _ => "wait for the command",
        };
        Err(Fault { step: step.to_owned(), errno })
    }
}

fn confine_step(errno: i32) -> &'static str {
    if errno == Errno::OPNOTSUPP.raw_os_error() {
        super::confine::LANDLOCK_STEP
    } else {
        "confine with Landlock"
    }
}

/// Says what failed. If nobody listens, nobody waits.
pub(super) fn report(outcome: &OwnedFd, step: u8, errno: i32) {
    let mut said = vec![step];
    said.extend(errno.to_ne_bytes());
    let _ = rustix::io::write(outcome, &said);
}

/// The streams of a command that is about to be.
pub(super) struct Streams([OwnedFd; 3]);

impl Streams {
    pub(super) fn of(descriptors: Vec<OwnedFd>) -> io::Result<Self> {
        let streams = <[OwnedFd; 3]>::try_from(descriptors).map_err(|_| Errno::BADF)?;
        Ok(Self(streams))
    }

    /// Makes them this process's own, with nothing else open. A terminal becomes that of its session,
    /// which it must lead.
    pub(super) fn take_over(&self, terminal: Option<&OwnedFd>) -> io::Result<()> {
        if let Some(terminal) = terminal {
            rustix::process::ioctl_tiocsctty(terminal)?;
        }
        rustix::stdio::dup2_stdin(&self.0[0])?;
        rustix::stdio::dup2_stdout(&self.0[1])?;
        rustix::stdio::dup2_stderr(&self.0[2])?;
        if keeps(Protection::CloseDescriptors) {
            sys::close_on_exec_from(3)?;
        } else {
            std::mem::forget(rustix::io::dup(&self.0[0])?);
        }
        sys::unblock_signals()
    }
}

/// A command that is about to be executed.
pub(super) struct Program<'a> {
    execution: &'a Execution,
    candidates: Vec<Cow<'a, CStr>>,
    arguments: Vec<&'a CStr>,
    environment: Vec<&'a CStr>,
}

impl<'a> Program<'a> {
    pub(super) fn new(execution: &'a Execution) -> io::Result<Self> {
        Ok(Self {
            execution,
            candidates: execution.candidates()?,
            arguments: execution.arguments().collect(),
            environment: execution.environment().collect(),
        })
    }

    /// Tries each candidate, as `execvp` does; returns the error that says most.
    pub(super) fn execute(&self) -> io::Error {
        if let Err(error) = rustix::process::chdir(&self.execution.directory) {
            return error.into();
        }
        let mut said = io::Error::from(Errno::NOENT);
        for candidate in &self.candidates {
            let error = sys::exec(candidate, &self.arguments, &self.environment);
            match Errno::from_io_error(&error) {
                Some(Errno::NOENT | Errno::NOTDIR) => {}
                // A script without `#!`.
                Some(Errno::NOEXEC) => return self.execute_by_shell(candidate),
                _ => said = error,
            }
        }
        said
    }

    /// Ends this process as a shell would that could not execute the command.
    pub(super) fn say_not_executed(&self, error: &io::Error) -> ! {
        let errno = error.raw_os_error();
        let not_found =
            [Errno::NOENT, Errno::NOTDIR].map(Errno::raw_os_error).map(Some).contains(&errno);
        let (code, reason) = if not_found {
            (NOT_FOUND, "command not found")
        } else {
            (NOT_EXECUTABLE, "cannot execute")
        };
        let name = self.arguments.first().copied().unwrap_or_default().to_string_lossy();
        let text = format!("agentjail: {name}: {reason}: {error}\n");
        let _ = rustix::io::write(rustix::stdio::stderr(), text.as_bytes());
        sys::exit(code)
    }

    fn execute_by_shell(&self, script: &CStr) -> io::Error {
        let mut arguments = vec![c"sh", script];
        arguments.extend(self.arguments.iter().skip(1));
        sys::exec(c"/bin/sh", &arguments, &self.environment)
    }
}
