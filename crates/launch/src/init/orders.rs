//! A live jail: further commands, signals, sockets, and the end of each command.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process_group, wait, waitpid};
use sys::{Forked, Stack};

use super::command::{AT_EXEC, AT_FILTER, AT_STAGE, Outcome, Program, Streams, report};
use super::confine::Behind;
use super::{confine, network, terminal};
use crate::birth::Birthplace;
use crate::message::{At as _, Exit, Fault, Further, Order, Process, Profile, Report};
use crate::shape::Shape;
use crate::wire;

/// Commands that may run in one jail at the same time. The limit of processes usually comes first.
const MOST_COMMANDS: usize = 1024;

/// The commands of a jail, from its first report on.
pub(super) struct Commands<'a> {
    children: OwnedFd,
    open_files: u64,
    shape: &'a Shape,
    birthplace: &'a Birthplace,
    behind: Behind,
    running: HashMap<Pid, Running>,
    /// Those on their way to `exec`, and the terminals to hand over when they are there.
    born: Vec<Born>,
    /// What the first command's stage had.
    lent: Option<Lent>,
}

/// Nobody needs it any more, and nobody shall wait for its end.
struct Lent {
    _stack: Stack,
    _socket: OwnedFd,
}

/// A command, and whether what is left of its session ends with it.
#[derive(Clone, Copy)]
struct Running {
    process: Process,
    whole: bool,
}

struct Born {
    process: Process,
    outcome: Outcome,
    terminal: Option<OwnedFd>,
}

impl<'a> Commands<'a> {
    pub(super) fn new(
        children: OwnedFd,
        open_files: u64,
        behind: Behind,
        shape: &'a Shape,
        birthplace: &'a Birthplace,
    ) -> Self {
        Self {
            children,
            open_files,
            shape,
            birthplace,
            behind,
            running: HashMap::new(),
            born: Vec::new(),
            lent: None,
        }
    }

    /// Keeps what the first command's stage was lent until all ends.
    pub(super) fn keep(&mut self, stack: Stack, socket: OwnedFd) {
        self.lent = Some(Lent { _stack: stack, _socket: socket });
    }

    /// Takes in a command that was started; gives its end if that has come already.
    pub(super) fn add(&mut self, process: Process, pid: Pid) -> Option<Exit> {
        if let Ok(Some((_, status))) = waitpid(Some(pid), WaitOptions::NOHANG) {
            return Some(exit(status));
        }
        self.running.insert(pid, Running { process, whole: false });
        None
    }

    /// Reaps everything, reports ends, obeys, and stays until it is killed or the server has gone.
    pub(super) fn serve(mut self, report: &OwnedFd) -> i32 {
        loop {
            let mut watched = vec![
                PollFd::new(report, PollFlags::IN),
                PollFd::new(&self.children, PollFlags::IN),
            ];
            watched
                .extend(self.born.iter().map(|born| PollFd::new(&born.outcome.0, PollFlags::IN)));
            if poll(&mut watched, None).is_err_and(|error| error != Errno::INTR) {
                return 1;
            }
            let told: Vec<bool> = watched.iter().map(|fd| !fd.revents().is_empty()).collect();
            // Births before ends: who hears that a command has ended must have heard that it ran.
            self.announce(&told[2..], report);
            if told[0] {
                match wire::receive::<Order>(report) {
                    Ok(Some((order, descriptors))) => self.obey(order, descriptors, report),
                    // The server has gone, or speaks another language.
                    Ok(None) | Err(_) => return 0,
                }
            }
            if told[1] {
                self.reap(report);
            }
        }
    }

    fn announce(&mut self, told: &[bool], report: &OwnedFd) {
        for n in (0..told.len()).rev().filter(|n| told[*n]) {
            let born = self.born.swap_remove(n);
            self.announce_one(born, report);
        }
    }

    fn announce_one(&mut self, born: Born, report: &OwnedFd) {
        let Born { process, outcome, terminal } = born;
        match outcome.read() {
            Ok(not_executed) => {
                let lent: Vec<BorrowedFd<'_>> = terminal.iter().map(AsFd::as_fd).collect();
                say(report, &Report::Started { process, not_executed }, &lent);
            }
            Err(fault) => {
                // It never was a command: its end is nobody's news.
                self.running.retain(|_, known| known.process != process);
                say(report, &Report::NotStarted { process, fault }, &[]);
            }
        }
    }

    fn reap(&mut self, report: &OwnedFd) {
        let mut signal = [0_u8; 128];
        while rustix::io::read(&self.children, &mut signal).is_ok() {}
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            let Some(Running { process, whole }) = self.running.get(&pid).copied() else {
                continue;
            };
            if whole {
                // Before anybody hears of its end. Its number is a session's as long as one of that lives.
                self.end_session(pid, whole);
            }
            // It may have ended before its birth was read from the pipe.
            if let Some(at) = self.born.iter().position(|born| born.process == process) {
                let born = self.born.swap_remove(at);
                self.announce_one(born, report);
            }
            if self.running.remove(&pid).is_some() {
                say(report, &Report::Exited { process, exit: exit(status) }, &[]);
            }
        }
    }

    fn end_session(&self, leader: Pid, whole: bool) {
        let commands: Vec<i32> =
            self.running.keys().map(|pid| pid.as_raw_nonzero().get()).collect();
        end_family(leader, whole.then_some(&commands));
    }

    fn obey(&mut self, order: Order, descriptors: Vec<OwnedFd>, report: &OwnedFd) {
        match order {
            Order::Signal { process, signal } => self.signal(process, signal),
            Order::Kill { process } => self.kill(process),
            Order::Start(further) => {
                let process = further.process;
                match self.start(&further, descriptors) {
                    Ok(born) => self.born.push(born),
                    Err(fault) => say(report, &Report::NotStarted { process, fault }, &[]),
                }
            }
            Order::Connect { request, port } => {
                give(report, request, network::connect(port).at(format!("connect to port {port}")));
            }
            Order::Listen { request, listener } => {
                give(report, request, crate::network::listener(&listener));
            }
        }
    }

    fn pid(&self, process: Process) -> Option<Pid> {
        self.running.iter().find(|(_, known)| known.process == process).map(|(pid, _)| *pid)
    }

    /// A command is the leader of its session, and so of a process group.
    fn signal(&self, process: Process, number: i32) {
        if let (Some(pid), Some(signal)) = (self.pid(process), Signal::from_named_raw(number)) {
            // Fails when the command has just ended.
            let _ = kill_process_group(pid, signal);
        }
    }

    fn kill(&self, process: Process) {
        let Some(leader) = self.pid(process) else { return };
        let whole = self.running.get(&leader).is_some_and(|running| running.whole);
        self.end_session(leader, whole);
        let _ = kill_process_group(leader, Signal::KILL);
    }

    fn start(&mut self, further: &Further, descriptors: Vec<OwnedFd>) -> Result<Born, Fault> {
        if self.running.len() >= MOST_COMMANDS {
            return Err(Errno::AGAIN).at("start one more command in this jail");
        }
        self.go_behind_walls()?;
        let program = Program::new(&further.command).at("read the command")?;
        let (ours, terminal, streams) = match further.terminal {
            None => (None, None, descriptors),
            Some(size) => {
                let (ours, theirs) = terminal::open(size).at("open a terminal")?;
                let copy = || theirs.try_clone().at("copy a descriptor");
                let streams = vec![copy()?, copy()?, copy()?];
                (Some(ours), Some(theirs), streams)
            }
        };
        let streams = Streams::of(streams).at("receive the command's streams")?;
        let (outcome, inner_outcome) = pipe_with(PipeFlags::CLOEXEC).at("make a pipe")?;
        match sys::fork().at("fork")? {
            Forked::Child => {
                self.become_command(&program, &streams, terminal.as_ref(), &inner_outcome)
            }
            Forked::Parent { pid } => {
                let pid = Pid::from_raw(pid.cast_signed()).ok_or(Errno::SRCH).at("fork")?;
                let running = Running { process: further.process, whole: further.whole };
                self.running.insert(pid, running);
                Ok(Born { process: further.process, outcome: Outcome(outcome), terminal: ours })
            }
        }
    }

    /// A step that fails is tried again with the next command: none is started before all hold.
    fn go_behind_walls(&mut self) -> Result<(), Fault> {
        self.behind.landlock(self.shape, self.birthplace)?;
        self.behind.filter(self.shape, self.birthplace)?;
        confine::confirm()
    }

    fn become_command(
        &self,
        program: &Program<'_>,
        streams: &Streams,
        terminal: Option<&OwnedFd>,
        outcome: &OwnedFd,
    ) -> ! {
        let eio = Errno::IO.raw_os_error();
        let staged = rustix::process::setsid()
            .map_err(std::io::Error::from)
            .and_then(|_| streams.take_over(terminal))
            .and_then(|()| confine::open_files(self.open_files));
        if let Err(error) = staged {
            report(outcome, AT_STAGE, error.raw_os_error().unwrap_or(eio));
            sys::exit(1);
        }
        // Init's own is the standard one.
        let strict = self.shape.filter.profile == Profile::Strict;
        let more = strict.then(|| self.birthplace.filter(self.shape.filter));
        if let Some(Err(fault)) = more.map(confine::filter) {
            report(outcome, AT_FILTER, fault.errno);
            sys::exit(1);
        }
        let error = program.execute();
        report(outcome, AT_EXEC, error.raw_os_error().unwrap_or(eio));
        program.say_not_executed(&error)
    }
}

/// If it cannot be sent, the server has gone, and poll will say so.
fn say(report: &OwnedFd, message: &Report, descriptors: &[BorrowedFd<'_>]) {
    drop(wire::send(report, message, descriptors));
}

fn give(report: &OwnedFd, request: u32, socket: Result<OwnedFd, Fault>) {
    match socket {
        Ok(socket) => say(report, &Report::Socket { request, refused: None }, &[socket.as_fd()]),
        Err(fault) => say(report, &Report::Socket { request, refused: Some(fault) }, &[]),
    }
}

fn exit(status: WaitStatus) -> Exit {
    match status.terminating_signal() {
        Some(signal) => Exit::Signal(signal),
        None => Exit::Code(status.exit_status().unwrap_or(-1)),
    }
}

/// Whose child an orphan becomes.
const INIT: i32 = 1;

/// Kills a session and what descends from it, also what left it and is an orphan by now, until a look finds nobody:
/// what is killed may have started something in the meantime. With `commands`, which are children of init and none of it, orphans belong to it.
fn end_family(leader: Pid, commands: Option<&Vec<i32>>) {
    for _ in 0..16 {
        let family = family(leader, commands);
        for pid in &family {
            let _ = rustix::process::kill_process(*pid, Signal::KILL);
        }
        if family.iter().all(|pid| *pid == leader) {
            break;
        }
    }
}

/// A session's leader, its members, orphans, and whatever descends from one of them. Orphans of other commands are not
/// told apart: one that keeps them is a subreaper.
fn family(leader: Pid, commands: Option<&Vec<i32>>) -> Vec<Pid> {
    let table: Vec<(i32, i32, i32)> = processes();
    let leader_number = leader.as_raw_nonzero().get();
    let mut family = vec![leader_number];
    let mut grown = true;
    while grown {
        grown = false;
        for (pid, parent, session) in &table {
            let orphan = *parent == INIT && commands.is_some_and(|all| !all.contains(pid));
            let belongs = *session == leader_number || orphan || family.contains(parent);
            if belongs && !family.contains(pid) {
                family.push(*pid);
                grown = true;
            }
        }
    }
    family.into_iter().filter(|pid| *pid > 1).filter_map(Pid::from_raw).collect()
}

/// Process, parent and session of everything in the jail.
fn processes() -> Vec<(i32, i32, i32)> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
            // The name, field 2, may hold anything: count from its end.
            let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
            // One that is dead is nobody to kill.
            if fields.next()? == "Z" {
                return None;
            }
            let parent = fields.next()?.parse().ok()?;
            let session = fields.nth(1)?.parse().ok()?;
            Some((pid, parent, session))
        })
        .collect()
}
