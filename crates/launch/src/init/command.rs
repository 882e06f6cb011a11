//! Starting the command: a child of init that becomes another program.

use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt as _;
use std::path::Path;

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Pid;
use sys::{Birth, Instruction, Namespaces, Side};

use super::confine;
use crate::message::{At as _, Command, Fault};

/// Exit codes of a shell for a command that is not there, and for one that cannot be run.
const NOT_FOUND: i32 = 127;
const NOT_EXECUTABLE: i32 = 126;

/// A command that is being started.
pub(super) struct CommandBirth {
    pub(super) pid: Pid,
    /// Closed by a successful `exec`; carries what failed otherwise.
    outcome: OwnedFd,
}

/// What failed between `clone` and `exec`.
const AT_STAGE: u8 = 1;
const AT_FILTER: u8 = 2;
const AT_EXEC: u8 = 3;

/// Starts the command under a filter.
pub(super) fn start(
    command: &Command,
    streams: &[OwnedFd; 3],
    filter: &[Instruction],
) -> Result<CommandBirth, Fault> {
    let program = Program::new(command).at("read the command")?;
    let (outcome, inner_outcome) = pipe_with(PipeFlags::CLOEXEC).at("make a pipe")?;
    let birth = Birth { namespaces: Namespaces::NONE, cgroup: None };
    match sys::clone3(&birth).at("clone")? {
        Side::Child => become_program(&program, streams, filter, &inner_outcome),
        Side::Parent { pid, .. } => {
            let pid = Pid::from_raw(pid.cast_signed()).ok_or(Errno::SRCH).at("clone")?;
            Ok(CommandBirth { pid, outcome })
        }
    }
}

impl CommandBirth {
    /// Waits until the command runs; the errno if it could not be executed (it exits then as a
    /// shell would say), an error if it was not confined.
    pub(super) fn outcome(&mut self) -> Result<Option<i32>, Fault> {
        let mut said = [0; 5];
        let length = rustix::io::retry_on_intr(|| rustix::io::read(&self.outcome, &mut said))
            .at("wait for the command")?;
        let [step, errno @ ..] = said;
        let errno = i32::from_ne_bytes(errno);
        match (length, step) {
            (0, _) => Ok(None),
            (5, AT_EXEC) => Ok(Some(errno)),
            (5, AT_FILTER) => Err(Fault { step: "install the seccomp filter".to_owned(), errno }),
            _ => Err(Fault { step: "prepare the command's streams".to_owned(), errno }),
        }
    }
}

/// Runs in the child. Never returns: what follows `clone` in the parent is not the child's to do.
fn become_program(
    program: &Program,
    streams: &[OwnedFd; 3],
    filter: &[Instruction],
    outcome: &OwnedFd,
) -> ! {
    let (step, error) = if let Err(error) = set_the_stage(streams) {
        (AT_STAGE, error)
    } else if let Err(fault) = confine::filter(filter) {
        (AT_FILTER, io::Error::from_raw_os_error(fault.errno))
    } else {
        (AT_EXEC, program.execute())
    };
    let errno = error.raw_os_error().unwrap_or(Errno::IO.raw_os_error());
    let mut said = vec![step];
    said.extend(errno.to_ne_bytes());
    let _ = rustix::io::write(outcome, &said);
    let not_found = [Errno::NOENT, Errno::NOTDIR].map(Errno::raw_os_error).contains(&errno);
    let (code, reason) = if not_found {
        (NOT_FOUND, "command not found")
    } else {
        (NOT_EXECUTABLE, "cannot execute")
    };
    let text = format!("agentjail: {}: {reason}: {error}\n", program.name);
    let _ = rustix::io::write(rustix::stdio::stderr(), text.as_bytes());
    sys::exit(code)
}

fn set_the_stage(streams: &[OwnedFd; 3]) -> io::Result<()> {
    rustix::process::setsid()?;
    rustix::stdio::dup2_stdin(&streams[0])?;
    rustix::stdio::dup2_stdout(&streams[1])?;
    rustix::stdio::dup2_stderr(&streams[2])?;
    sys::close_on_exec_from(3)?;
    sys::restore_signals()
}

/// A command in the form `execve` takes.
struct Program {
    name: String,
    /// Where it may be, in order.
    candidates: Vec<CString>,
    arguments: Vec<CString>,
    environment: Vec<CString>,
}

impl Program {
    fn new(command: &Command) -> io::Result<Self> {
        let arguments = std::iter::once(&command.program).chain(&command.arguments);
        let environment = command.environment.iter().map(|(name, value)| format!("{name}={value}"));
        Ok(Self {
            name: command.program.clone(),
            candidates: candidates(command)?,
            arguments: arguments.map(|a| c_string(a.clone())).collect::<io::Result<_>>()?,
            environment: environment.map(c_string).collect::<io::Result<_>>()?,
        })
    }

    /// Tries each candidate, as `execvp` does; returns the error that says most.
    fn execute(&self) -> io::Error {
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

    fn execute_by_shell(&self, script: &CString) -> io::Error {
        let mut arguments = vec![c"sh".to_owned(), script.clone()];
        arguments.extend(self.arguments.iter().skip(1).cloned());
        sys::exec(c"/bin/sh", &arguments, &self.environment)
    }
}

fn candidates(command: &Command) -> io::Result<Vec<CString>> {
    if command.program.contains('/') || command.program.is_empty() {
        return Ok(vec![c_string(command.program.clone())?]);
    }
    let path = command.environment.iter().rev().find(|(name, _)| name == "PATH");
    let path = path.map(|(_, value)| value.as_str()).unwrap_or_default();
    path.split(':')
        .map(|directory| if directory.is_empty() { "." } else { directory })
        .map(|directory| c_string(Path::new(directory).join(&command.program)))
        .collect()
}

fn c_string(text: impl Into<OsString>) -> io::Result<CString> {
    CString::new(text.into().into_vec()).map_err(|_| Errno::INVAL.into())
}
