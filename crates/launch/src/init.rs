//! Process 1 of a jail.
//!
//! ```text
//!   spare     limits, /proc ──▶ join cgroup ──▶ wait for a shape
//!             (it may become anybody's, with this network)
//!   blank     ids ──▶ the rest of the house ──▶ fork the stage ─┐
//!             (nobody's yet)                                    ▼
//!                              the stage: no capabilities, filter, Landlock ──▶ waits
//!   assigned  attach trees ──▶ give up capabilities ──▶ go! ──▶ Ready ──▶ serve orders, reap
//!                                                        │                until killed
//!                                                        └──▶ the stage: limits, exec
//!
//!   something to attach             then Landlock can only be taken when it is there: by the stage, late
//!   nothing to attach               init gave up its capabilities, and went behind the walls, before it forked the
//!                                   stage, and has stood still since; the launcher tells the stage its command
//! ```
//!
//! The *stage* is the process that becomes the first command. It is born, and closed in, while the jail
//! is still nobody's, so that a start has only the rest to do.
//!
//! Until it gives them up, init holds every capability, but only over the namespaces it was born into.
//! It is never dumpable, so a command, which runs as the same user, can neither trace it nor look
//! into its `/proc` entry. What it starts dies with it: it is the init of its PID namespace, and the
//! server ends a jail by killing it. Where all is there already, it goes behind the walls of the first command
//! before it forks the stage; else it does so before it starts a further command. All that follow are
//! born there.

mod command;
pub(crate) mod confine;
mod house;
mod image;
mod layers;
mod network;
mod orders;
mod rehearsal;
pub(crate) mod stage;
mod terminal;

use std::borrow::Cow;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{RecvFlags, recv};
use rustix::process::{
    DumpableBehavior, Signal, set_dumpable_behavior, set_parent_process_death_signal,
};
use rustix::thread::sched_yield;

use crate::birth::Birthplace;
use crate::message::{Assignment, At as _, FIRST, Fault, Knock, Report, Work};
use crate::shape::Shape;
use crate::template::USER_ID;
use crate::{fault, wire};
use mutation::{Protection, keeps};

use confine::Behind;
use orders::Commands;
use stage::{Go, Stage};

/// The descriptors that init is born with.
pub(crate) struct Inherited {
    /// Where the launcher knocks.
    pub(crate) door: OwnedFd,
    /// Where a stage listens that the launcher tells its command.
    pub(crate) calls: OwnedFd,
    /// Bound in the network that init is born into; handed out when the jail is somebody's.
    pub(crate) listeners: Vec<OwnedFd>,
}

/// What is ready before the jail is anybody's.
struct House {
    children: OwnedFd,
    listeners: Vec<OwnedFd>,
    stage: Stage,
    behind: Behind,
}

/// What init was given for one jail.
struct Gifts {
    assignment: Assignment<'static>,
    /// Init's own, for the server.
    pidfd: OwnedFd,
    report: OwnedFd,
    /// Standard input, output and error of the first command.
    streams: Option<[OwnedFd; 3]>,
    code: Option<OwnedFd>,
    trees: Vec<OwnedFd>,
}

/// Is process 1 of a new jail, from its first instruction to its last.
pub(crate) fn run(inherited: Inherited, birthplace: &Birthplace) -> ! {
    let Inherited { door, calls, listeners } = inherited;
    let kept = [&door, &calls].into_iter().chain(&listeners);
    if sys::close_all_but(&kept.map(AsFd::as_fd).collect::<Vec<_>>()).is_err() {
        sys::exit(1);
    }
    if tie_to_launcher().is_err() || !is_launcher_there(&door) {
        sys::exit(1);
    }
    // What a command expects; init itself writes to nothing that could raise one.
    sys::stop_ignoring_broken_pipes();
    let begun = begin_house(&door);
    // Without a report socket there is nobody to tell: the server sees init die.
    let code = match receive_shape(&door) {
        Ok(Some(shape)) => {
            let house = begun.and_then(|children| {
                let calls = shape.is_whole().then_some(calls);
                finish_house(&door, children, calls, listeners, &shape, birthplace)
            });
            match receive(&door) {
                Ok(Some(gifts)) => live(house, gifts, &shape, birthplace),
                Ok(None) | Err(_) => 1,
            }
        }
        Ok(None) | Err(_) => 1,
    };
    sys::exit(code)
}

/// What needs neither ids nor a shape. Gives the descriptor that tells of children.
fn begin_house(door: &OwnedFd) -> Result<OwnedFd, Fault> {
    let children = sys::child_signals().at("watch for children")?;
    fault::inject("confine")?;
    confine::resource_limits()?;
    confine::no_new_privileges()?;
    confine::empty_bounding_set()?;
    house::begin()?;
    // After what the group's files may be made during.
    let files = expect(door, |knock| matches!(knock, Knock::Join))?;
    join_cgroup(files)?;
    Ok(children)
}

/// The rest of what can be done before it is known for whom.
fn finish_house(
    door: &OwnedFd,
    children: OwnedFd,
    calls: Option<OwnedFd>,
    listeners: Vec<OwnedFd>,
    shape: &Shape,
    birthplace: &Birthplace,
) -> Result<House, Fault> {
    become_the_jails_user()?;
    // The change of user has cleared it.
    tie_to_launcher()?;
    house::build(shape)?;
    let mut behind = Behind::default();
    let stage = match calls {
        None => stage::fork(shape, birthplace)?,
        Some(calls) => {
            let workspace = house::finish(shape)?;
            confine::no_capabilities()?;
            rehearsal::rehearse(door);
            behind.filter(shape, birthplace)?;
            if shape.is_closed_early() {
                behind.landlock(shape, birthplace)?;
            }
            stage::lend(calls, workspace, behind, shape, birthplace)?
        }
    };
    Ok(House { children, listeners, stage, behind })
}

/// Waits until the jail has a shape; `None` if the launcher has gone.
fn receive_shape(door: &OwnedFd) -> Result<Option<Shape>, Fault> {
    loop {
        match wire::receive::<Knock<'_>>(door).at("receive the shape")? {
            Some((Knock::Form(shape), _)) => return Ok(Some(*shape)),
            // Left over from a beginning that failed: the assignment's reporter shall hear why.
            Some((Knock::Join, _)) => {}
            Some((Knock::Assign(_), _)) => {
                return Err(rustix::io::Errno::PROTO).at("receive the shape");
            }
            None => return Ok(None),
        }
    }
}

/// Waits for one word of the launcher; gives the descriptors that came with it.
fn expect(door: &OwnedFd, is_it: impl Fn(&Knock<'_>) -> bool) -> Result<Vec<OwnedFd>, Fault> {
    match wire::receive::<Knock<'_>>(door).at("hear the launcher")? {
        Some((knock, descriptors)) if is_it(&knock) => Ok(descriptors),
        Some(_) | None => Err(rustix::io::Errno::PROTO).at("hear the launcher"),
    }
}

fn receive(door: &OwnedFd) -> Result<Option<Gifts>, Fault> {
    let (assignment, descriptors) =
        match wire::receive::<Knock<'_>>(door).at("receive the assignment")? {
            Some((Knock::Assign(assignment), descriptors)) => (assignment, descriptors),
            Some(_) => return Err(rustix::io::Errno::PROTO).at("receive the assignment"),
            None => return Ok(None),
        };
    let mut descriptors = descriptors.into_iter();
    let mut next = || descriptors.next().ok_or(rustix::io::Errno::BADF).at("receive descriptors");
    let (pidfd, report) = (next()?, next()?);
    let mut gifts =
        Gifts { assignment, pidfd, report, streams: None, code: None, trees: Vec::new() };
    if let Work::Given(spec) = &gifts.assignment.work {
        gifts.streams = match &spec.command {
            Some(_) => Some([next()?, next()?, next()?]),
            None => None,
        };
        gifts.code = spec.code.is_some().then(&mut next).transpose()?;
        gifts.trees = descriptors.collect();
    }
    Ok(Some(gifts))
}

fn live(house: Result<House, Fault>, gifts: Gifts, shape: &Shape, birthplace: &Birthplace) -> i32 {
    let Gifts { assignment, pidfd, report, streams, code, trees } = gifts;
    let begun = house.and_then(|house| {
        begin(house, assignment, streams, code, trees, [&report, &pidfd], shape, birthplace)
    });
    drop(pidfd);
    match begun {
        Ok(commands) => commands.serve(&report),
        Err(fault) => {
            drop(wire::send(&report, &Report::Failed(fault), &[]));
            1
        }
    }
}

/// Puts everything in force, starts the first command, and reports that it runs.
#[expect(
    clippy::too_many_arguments,
    reason = "the parts of one assignment, each moved to its place"
)]
fn begin<'a>(
    house: House,
    assignment: Assignment<'static>,
    streams: Option<[OwnedFd; 3]>,
    code: Option<OwnedFd>,
    trees: Vec<OwnedFd>,
    [report, pidfd]: [&OwnedFd; 2],
    shape: &'a Shape,
    birthplace: &'a Birthplace,
) -> Result<Commands<'a>, Fault> {
    let House { children, listeners, stage, behind } = house;
    let Assignment { standing, open_files, work } = assignment;
    let mut commands = Commands::new(children, open_files, behind, shape, birthplace);
    let (first, outcome) = match (stage, work) {
        (Stage::Left { pid, outcome, heard, socket, stack }, Work::Told { command }) => {
            commands.keep(stack, socket);
            if !heard {
                outcome.read()?;
                return Err(rustix::io::Errno::PIPE).at("tell the stage its command");
            }
            (command.then_some(pid), Some(outcome))
        }
        (Stage::Waiting(stage), Work::Given(spec)) => {
            fault::inject("attach")?;
            house::attach(&spec, trees, code)?;
            confine::no_capabilities()?;
            if let (Some(command), Some(streams)) = (&spec.command, streams) {
                let pid = stage.pid();
                let command = Some(Cow::Borrowed(command));
                let go = Go { command, open_files, code: None };
                // With ours, the pipes would stay open when the command has closed its own: they go here.
                (Some(pid), Some(stage.go(&go, &streams)?))
            } else {
                stage.dismiss();
                (None, None)
            }
        }
        _ => return Err(rustix::io::Errno::PROTO).at("take on the assignment"),
    };
    let not_executed = outcome.map(|outcome| outcome.read()).transpose()?.flatten();
    // A short command may be over by now: its owner need not be woken twice. Where it waits for this
    // processor, it goes first; where it has another, this takes no time.
    sched_yield();
    let ended = first.and_then(|pid| commands.add(FIRST, pid));
    fault::inject("report")?;
    let lent: Vec<_> = std::iter::once(pidfd).chain(&listeners).map(AsFd::as_fd).collect();
    let ready = Report::Ready { standing, not_executed, ended };
    wire::send(report, &ready, &lent).at("report that the jail is ready")?;
    Ok(commands)
}

fn join_cgroup(files: Vec<OwnedFd>) -> Result<(), Fault> {
    fault::inject("join")?;
    for file in files {
        rustix::io::write(&file, b"0").at("join the jail's cgroup")?;
    }
    sys::unshare(sys::Namespaces::CGROUP).at("make a cgroup namespace")
}

/// The launcher's death is init's from here on.
fn tie_to_launcher() -> Result<(), Fault> {
    if !keeps(Protection::DeathSignal) {
        return Ok(());
    }
    set_parent_process_death_signal(Some(Signal::KILL)).at("tie init to the launcher")
}

/// Whether the launcher was there still when init was tied to it: it has said its first word, or may yet.
fn is_launcher_there(door: &OwnedFd) -> bool {
    let first = recv(door, &mut [0_u8; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT);
    !matches!(first, Ok((_, 0)))
}

fn become_the_jails_user() -> Result<(), Fault> {
    fault::inject("user")?;
    let (user, group) =
        (rustix::thread::Uid::from_raw(USER_ID), rustix::thread::Gid::from_raw(USER_ID));
    // Refused where `setgroups` is denied (the launcher is an ordinary user): the groups that
    // remain are that user's own, and unmapped here.
    let _ = rustix::thread::set_thread_groups(&[]);
    rustix::thread::set_thread_res_gid(group, group, group).at("become the jail's group")?;
    rustix::thread::set_thread_res_uid(user, user, user).at("become the jail's user")?;
    if keeps(Protection::Undumpable) {
        set_dumpable_behavior(DumpableBehavior::NotDumpable).at("become undumpable")?;
    } else {
        set_dumpable_behavior(DumpableBehavior::Dumpable).at("become dumpable")?;
    }
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    Ok(())
}
