//! Process 1 of a jail.
//!
//! ```text
//!   born ──▶ wait for ids ──▶ house ──▶ network ──▶ confine ──▶ command ──▶ Ready ──▶ reap
//!                 (barrier)   mounts     sockets    no way back                        until killed
//! ```
//!
//! Up to `confine` it holds every capability, but only over the namespaces it was born into; after
//! that none. It is never dumpable, so the command, which runs as the same user, can neither trace
//! it nor look into its `/proc` entry. What it starts dies with it: it is the init of its PID
//! namespace, and the server ends a jail by killing it.

mod command;
mod confine;
mod house;
mod network;

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{
    DumpableBehavior, Pid, Signal, WaitOptions, WaitStatus, set_dumpable_behavior,
    set_parent_process_death_signal, wait,
};

use crate::birth::Birthplace;
use crate::message::{Assignment, At as _, Exit, Fault, Order, Report, Spec};
use crate::template::USER_ID;
use crate::wire;

/// What init was given for one jail.
struct Gifts {
    spec: Spec,
    enforced: Vec<String>,
    report: OwnedFd,
    /// Standard input, output and error of the command.
    streams: [OwnedFd; 3],
    code: Option<OwnedFd>,
    trees: Vec<OwnedFd>,
    cgroup_files: Vec<OwnedFd>,
}

/// Is process 1 of a new jail, from its first instruction to its last.
pub(crate) fn run(door: &OwnedFd, birthplace: &Birthplace) -> ! {
    // Without a report socket there is nobody to tell: the server sees init die.
    let code = match receive(door) {
        Ok(Some(gifts)) => live(gifts, birthplace),
        Ok(None) | Err(_) => 1,
    };
    sys::exit(code)
}

fn receive(door: &OwnedFd) -> Result<Option<Gifts>, Fault> {
    sys::close_all_but(&[door.as_fd()]).at("close the launcher's descriptors")?;
    let Some((assignment, descriptors)) = wire::receive::<Assignment>(door).at("receive")? else {
        return Ok(None);
    };
    let mut descriptors = descriptors.into_iter();
    let mut next = || descriptors.next().ok_or(rustix::io::Errno::BADF).at("receive descriptors");
    let report = next()?;
    let streams = [next()?, next()?, next()?];
    let code = assignment.spec.code.is_some().then(&mut next).transpose()?;
    let trees = (0..assignment.trees).map(|_| next()).collect::<Result<_, _>>()?;
    let cgroup_files = (0..assignment.cgroup_files).map(|_| next()).collect::<Result<_, _>>()?;
    let Assignment { spec, enforced, .. } = assignment;
    Ok(Some(Gifts { spec, enforced, report, streams, code, trees, cgroup_files }))
}

fn live(mut gifts: Gifts, birthplace: &Birthplace) -> i32 {
    match begin(&mut gifts, birthplace) {
        Ok((children, command)) => {
            // Ours would keep the pipes open when the command has closed its own.
            drop(gifts.streams);
            watch(&gifts.report, &children, command)
        }
        Err(fault) => {
            drop(wire::send(&gifts.report, &Report::Failed(fault), &[]));
            1
        }
    }
}

/// Puts everything in force, starts the command, and reports that it runs.
fn begin(gifts: &mut Gifts, birthplace: &Birthplace) -> Result<(OwnedFd, Pid), Fault> {
    join_cgroup(&gifts.cgroup_files)?;
    gifts.cgroup_files.clear();
    become_the_jails_user()?;
    let children = sys::child_signals().at("watch for children")?;
    rustix::system::sethostname(b"jail").at("set the host name")?;
    house::build(&gifts.spec, std::mem::take(&mut gifts.trees), gifts.code.take())?;
    let listeners = network::build(&gifts.spec.network)?;
    confine::confine(&gifts.spec, birthplace, &mut gifts.enforced)?;
    let filter = birthplace.filter(&gifts.spec);
    let mut birth = command::start(&gifts.spec.command, &gifts.streams, filter)?;
    // Init lives under a filter, too; not before, since it needs `clone3` for the command.
    confine::filter(birthplace.init_filter())?;
    let not_executed = birth.outcome()?;
    let lent: Vec<_> = listeners.iter().map(AsFd::as_fd).collect();
    let ready = Report::Ready { enforced: std::mem::take(&mut gifts.enforced), not_executed };
    wire::send(&gifts.report, &ready, &lent).at("report that the jail is ready")?;
    Ok((children, birth.pid))
}

/// Joins before anything is mounted, so that even that memory is counted.
fn join_cgroup(files: &[OwnedFd]) -> Result<(), Fault> {
    for file in files {
        rustix::io::write(file, b"0").at("join the jail's cgroup")?;
    }
    sys::unshare(sys::Namespaces::CGROUP).at("make a cgroup namespace")
}

fn become_the_jails_user() -> Result<(), Fault> {
    let (user, group) =
        (rustix::thread::Uid::from_raw(USER_ID), rustix::thread::Gid::from_raw(USER_ID));
    // Refused where `setgroups` is denied (the launcher is an ordinary user): the groups that
    // remain are that user's own, and unmapped here.
    let _ = rustix::thread::set_thread_groups(&[]);
    rustix::thread::set_thread_res_gid(group, group, group).at("become the jail's group")?;
    rustix::thread::set_thread_res_uid(user, user, user).at("become the jail's user")?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).at("become undumpable")?;
    // After the change of user, which clears it.
    set_parent_process_death_signal(Some(Signal::KILL)).at("tie init to the launcher")?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    Ok(())
}

/// Reaps everything, reports the command's end, and stays until it is killed or the server has gone.
fn watch(report: &OwnedFd, children: &OwnedFd, command: Pid) -> i32 {
    loop {
        let mut watched =
            [PollFd::new(report, PollFlags::IN), PollFd::new(children, PollFlags::IN)];
        if poll(&mut watched, None).is_err_and(|error| error != rustix::io::Errno::INTR) {
            return 1;
        }
        if !watched[0].revents().is_empty() {
            match wire::receive::<Order>(report) {
                Ok(Some((Order::Signal(number), _))) => forward(command, number),
                // The server has gone, or speaks another language.
                Ok(None) | Err(_) => return 0,
            }
        }
        let mut signal = [0_u8; 128];
        while rustix::io::read(children, &mut signal).is_ok() {}
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if pid == command {
                // If it cannot be sent, the server has gone, and poll will say so.
                drop(wire::send(report, &Report::Exited(exit(status)), &[]));
            }
        }
    }
}

/// The command is the leader of its session, and so of a process group.
fn forward(command: Pid, number: i32) {
    if let Some(signal) = Signal::from_named_raw(number) {
        // Fails when the command has just ended.
        let _ = rustix::process::kill_process_group(command, signal);
    }
}

fn exit(status: WaitStatus) -> Exit {
    match status.terminating_signal() {
        Some(signal) => Exit::Signal(signal),
        None => Exit::Code(status.exit_status().unwrap_or(-1)),
    }
}

/// The content of a descriptor, as a file.
fn file(descriptor: OwnedFd) -> File {
    File::from(descriptor)
}
