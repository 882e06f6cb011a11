//! The launcher's life: prepare once, then start jails and clean up after them.
//!
//! ```text
//!   exec ──▶ Prepare ──▶ wait ──▶ Request: make a jail, hand its pidfd to the server
//!                         ▲ │──▶ a jail's init died: reap it, remove its cgroup
//!                         └─┘──▶ nothing to do for a moment: make a blank jail or a spare for later
//!                           │
//!                           └──▶ the server is gone: kill every jail, clean up, exit
//! ```
//!
//! The launcher outlives a server that is killed by as long as it takes to end what the server had
//! started. If the launcher itself is killed, the kernel kills each init (parent-death signal), and
//! with it all that runs in its PID namespace.

mod leftovers;
mod pauses;
mod prepare;
mod stock;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, WaitOptions, pidfd_send_signal, wait};

use crate::birth::{Birthplace, Blank, Spare, Stillborn, in_force};
use crate::cgroup::{Driver, Group};
use crate::message::{At as _, Fault, Limits, Network, Reply, Request, Spec};
use crate::pool::Pool;
use crate::shape::Shape;
use crate::{template, wire};

use leftovers::Leftovers;
use pauses::Requests;
use prepare::{Ready, make_ready, take_standard_input};

/// Under this name the program is a launcher.
const NAME: &str = "agentjail-launcher";

/// How long our copies of sockets are kept that are on their way to an init, and how many. While one is on
/// its way, the kernel looks at each closing for sockets that are sent over each other in a circle.
const ON_THEIR_WAY: Duration = Duration::from_millis(2);
const MOST_ON_THEIR_WAY: usize = 128;

/// How often the machine's memory is looked at while there are blanks.
const LOOK: Duration = Duration::from_secs(2);

/// How often, and for how long, to look for the group that the alarm of a v1 machine was about.
const ALARM: Duration = Duration::from_millis(1);
const ALARM_LASTS: Duration = Duration::from_millis(200);

/// How long the server may take to read the counters of a jail that ran out of memory.
const COUNTERS_STAY: Duration = Duration::from_secs(1);

/// What this process was started as, when it is not what the user typed.
#[derive(Debug)]
pub struct Role(());

impl Role {
    /// The name to start the program under to make it a launcher.
    pub fn name() -> &'static str {
        NAME
    }

    /// Reads the role off the name this process was started under.
    pub fn from_argv0() -> Option<Self> {
        (std::env::args_os().next().as_deref() == Some(OsStr::new(NAME))).then_some(Self(()))
    }
}

/// Runs the launcher until the server closes the socket that is our standard input.
pub fn run(_role: &Role) -> ExitCode {
    match Launcher::prepare().and_then(|launcher| launcher.map_or(Ok(()), Launcher::serve)) {
        Ok(()) => ExitCode::SUCCESS,
        // The server reads our standard error into its log.
        Err(fault) => {
            eprintln!("launcher: {fault}");
            ExitCode::FAILURE
        }
    }
}

struct Launcher {
    server: OwnedFd,
    children: OwnedFd,
    birthplace: Birthplace,
    driver: Option<Box<dyn Driver>>,
    jails: HashMap<Pid, Ward>,
    leftovers: Leftovers,
    pool: Pool,
    /// Our copies of sockets that inits were sent, and the doors they were sent through.
    sent: Vec<OwnedFd>,
    requests: Requests,
    /// When the machine's memory was looked at.
    looked: Instant,
    /// Some group ran out of memory; until then we look which.
    alarm_until: Option<Instant>,
    /// Rings of the alarm that are to come from groups that were removed.
    false_alarms: u64,
    /// Groups are named in the order they are made.
    groups: u64,
}

/// A jail that runs, or one that is about to be reaped.
struct Ward {
    init: OwnedFd,
    group: Option<Group>,
    /// Closed at the end: while a socket is on its way to init, closing another has the kernel look for
    /// cycles among those that are sent over each other.
    _call: Option<OwnedFd>,
}

/// Whether an init died while it waited: another will do.
fn is_gone(fault: &Fault) -> bool {
    fault.errno == rustix::io::Errno::PIPE.raw_os_error()
}

/// What there is to do.
struct Tidings {
    server: bool,
    children: bool,
    alarm: bool,
}

impl Launcher {
    /// `None` if the server went away before it said what to prepare.
    fn prepare() -> Result<Option<Self>, Fault> {
        let server = take_standard_input().at("take the server's socket")?;
        // A Ctrl-C in the server's terminal is the server's to handle.
        rustix::process::setsid().at("leave the server's session")?;
        let Some((request, _)) = wire::receive::<Request>(&server).at("receive")? else {
            return Ok(None);
        };
        let Request::Prepare(preparation) = request else {
            return Err(rustix::io::Errno::PROTO).at("receive the preparation");
        };
        mutation::leave_out(&preparation.left_out);
        match make_ready(server.as_fd(), &preparation) {
            Ok(Ready { children, birthplace, driver }) => Ok(Some(Self {
                leftovers: Leftovers::of(driver.iter().map(|driver| driver.orphans())),
                server,
                children,
                birthplace,
                driver,
                jails: HashMap::new(),
                sent: Vec::new(),
                pool: Pool::new(preparation.pool),
                requests: Requests::new(Instant::now()),
                looked: Instant::now(),
                alarm_until: None,
                false_alarms: 0,
                groups: 0,
            })),
            Err(fault) => {
                wire::send(&server, &Reply::Unfit(fault.clone()), &[]).at("send")?;
                Err(fault)
            }
        }
    }

    /// However the talk with the server ends, what it started ends with it.
    fn serve(mut self) -> Result<(), Fault> {
        let talked = self.talk();
        self.end();
        talked
    }

    fn talk(&mut self) -> Result<(), Fault> {
        loop {
            let tidings = self.wait()?;
            if tidings.children {
                self.reap();
            }
            if tidings.alarm {
                self.answer_alarm();
            }
            if !tidings.server {
                self.tend_pool();
                continue;
            }
            let request = wire::receive::<Request>(&self.server);
            match request {
                Ok(Some((Request::Count(_), _))) => {}
                Ok(Some((Request::Start(_), _))) => self.requests.note_start(Instant::now()),
                _ => self.requests.note(Instant::now()),
            }
            match request {
                Ok(Some((Request::Start(spec), descriptors))) => {
                    self.start(*spec, descriptors).at("answer the server")?;
                }
                Ok(Some((Request::Warm(spec), _))) => {
                    let shape = self.birthplace.shape(&spec);
                    let surplus = self.pool.remember(&shape, &spec.limits);
                    self.retire(surplus);
                    let surplus = self.pool.remember_network(&shape.network, &spec.limits);
                    self.retire_spares(surplus);
                }
                Ok(Some((Request::Inquire(jail), _))) => {
                    self.inquire(jail).at("answer the server")?;
                }
                Ok(Some((Request::Count(request), _))) => {
                    let count = Reply::Blanks { request, count: self.pool.count() };
                    wire::send(&self.server, &count, &[]).at("answer the server")?;
                }
                Ok(Some((Request::Prepare(_), _))) | Err(_) => {
                    return Err(rustix::io::Errno::PROTO).at("receive a request");
                }
                Ok(None) => return Ok(()),
            }
        }
    }

    /// Waits for the server, a child, an alarm, or until something of our own is due.
    fn wait(&mut self) -> Result<Tidings, Fault> {
        if self.is_pause() || self.leftovers.are_many() {
            self.false_alarms += self.leftovers.remove_some();
        }
        if self.requests.since(Instant::now()) >= ON_THEIR_WAY
            || self.sent.len() > MOST_ON_THEIR_WAY
        {
            self.sent.clear();
        }
        let timeout = self.due().map(|wait| Timespec {
            tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(wait.subsec_nanos()),
        });
        let mut watched = vec![
            PollFd::new(&self.server, PollFlags::IN),
            PollFd::new(&self.children, PollFlags::IN),
        ];
        let alarm = self.driver.as_ref().and_then(|driver| driver.memory_alarm());
        watched.extend(alarm.map(|alarm| PollFd::from_borrowed_fd(alarm, PollFlags::IN)));
        match poll(&mut watched, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).at("wait"),
        }
        let told = |n: usize| watched.get(n).is_some_and(|fd| !fd.revents().is_empty());
        Ok(Tidings {
            server: told(0),
            children: told(1),
            alarm: told(2) || self.alarm_until.is_some(),
        })
    }

    fn is_pause(&self) -> bool {
        self.requests.until_pause(Instant::now()).is_zero()
    }

    /// How long until there is something to do unasked.
    fn due(&self) -> Option<Duration> {
        let wants = self.pool.wanted().is_some() || self.pool.wanted_spare().is_some();
        let pause = self.requests.until_pause(Instant::now());
        let fill = wants.then(|| if self.pool.is_dry() { Duration::ZERO } else { pause });
        let look = (!self.pool.is_empty()).then_some(LOOK);
        let retry = self.leftovers.due().map(|wait| wait.max(pause));
        let alarm = self.alarm_until.map(|_| ALARM);
        let sent = (!self.sent.is_empty()).then_some(ON_THEIR_WAY);
        [fill, look, retry, alarm, sent].into_iter().flatten().min()
    }

    fn start(&mut self, spec: Spec, descriptors: Vec<OwnedFd>) -> io::Result<()> {
        let jail = spec.jail;
        match self.bear(&spec, &descriptors) {
            // Init says so. The command's streams end with its own copies: ours go now.
            Ok(()) => {
                self.sent.extend(descriptors.into_iter().next());
                Ok(())
            }
            Err(fault) => wire::send(&self.server, &Reply::Refused { jail, fault }, &[]),
        }
    }

    /// What is known of a jail whose init has gone.
    fn inquire(&self, jail: u64) -> io::Result<()> {
        let groups = self.jails.values().filter_map(|ward| ward.group.as_ref());
        let group = groups.chain(self.leftovers.iter()).find(|group| group.jail == Some(jail));
        let oom = group.is_some_and(|group| group.ran_out_of_memory(Path::new(template::HOST)));
        wire::send(&self.server, &Reply::Died { jail, oom }, &[])
    }

    fn bear(&mut self, spec: &Spec, descriptors: &[OwnedFd]) -> Result<(), Fault> {
        let landlock_abi = self.birthplace.landlock_abi;
        let enforced = in_force(self.driver.as_deref(), landlock_abi, spec)?;
        let shape = self.birthplace.shape(spec);
        let surplus = self.pool.remember(&shape, &spec.limits);
        self.retire(surplus);
        let surplus = self.pool.remember_network(&shape.network, &spec.limits);
        self.retire_spares(surplus);
        while let Some(blank) = self.pool.take(&shape) {
            match self.assign(blank, spec, descriptors, enforced.clone()) {
                Err(fault) if is_gone(&fault) => {}
                answer => return answer,
            }
        }
        while let Some(spare) = self.pool.take_spare(&shape.network) {
            let formed = self.form(spare, &shape, &spec.limits);
            match formed.and_then(|blank| self.assign(blank, spec, descriptors, enforced.clone())) {
                Err(fault) if is_gone(&fault) => {}
                answer => return answer,
            }
        }
        let blank = self.blank(&shape, &spec.limits)?;
        self.assign(blank, spec, descriptors, enforced)
    }

    fn blank(&mut self, shape: &Shape, limits: &Limits) -> Result<Blank, Fault> {
        let spare = self.spare(&shape.network)?;
        self.form(spare, shape, limits)
    }

    fn spare(&mut self, network: &Network) -> Result<Spare, Fault> {
        let name = self.name();
        let made = self.birthplace.spare(self.driver.as_deref(), &name, network);
        made.map_err(|stillborn| self.lay_out(stillborn))
    }

    fn form(&mut self, spare: Spare, shape: &Shape, limits: &Limits) -> Result<Blank, Fault> {
        let formed = self.birthplace.form(self.driver.as_deref(), spare, shape, limits);
        formed.map_err(|stillborn| self.lay_out(stillborn))
    }

    /// Its group is removed with the others.
    fn lay_out(&mut self, Stillborn { fault, group }: Stillborn) -> Fault {
        self.leftovers.add(group.map(|group| *group));
        fault
    }

    fn assign(
        &mut self,
        mut blank: Blank,
        spec: &Spec,
        descriptors: &[OwnedFd],
        enforced: Vec<String>,
    ) -> Result<(), Fault> {
        let driver = self.driver.as_deref();
        let assigned = self.birthplace.assign(driver, &mut blank, spec, descriptors, enforced);
        let Blank { pid, init, group, door, call } = blank;
        self.sent.push(door);
        match assigned {
            Ok(()) => {
                self.jails.insert(pid, Ward { init, group, _call: call });
                Ok(())
            }
            Err(fault) => {
                self.leftovers.add(group);
                Err(fault)
            }
        }
    }

    /// Of a cgroup: not one of a launcher before this one, whose groups may still be there.
    fn name(&mut self) -> String {
        self.groups += 1;
        format!("jail-{}-{}", std::process::id(), self.groups)
    }

    fn reap(&mut self) {
        let mut signal = [0_u8; 128];
        while rustix::io::read(&self.children, &mut signal).is_ok() {}
        while let Ok(Some((pid, _))) = wait(WaitOptions::NOHANG) {
            // A child that is neither died at birth; its birth has dealt with it.
            let mut group = match self.jails.remove(&pid) {
                Some(ward) => ward.group,
                None => self.pool.bury(pid),
            };
            // Where the kernel ends the whole of a group there is no alarm, and the server may have heard of
            // the end only now.
            if let Some(group) = &mut group
                && self.driver.as_ref().is_some_and(|driver| driver.memory_alarm().is_none())
                && group.ran_out_of_memory(Path::new(template::HOST))
            {
                group.rests_until = Some(Instant::now() + COUNTERS_STAY);
            }
            self.leftovers.add(group);
        }
    }

    /// The kernel has killed, or is about to kill, one process of some group: the rest goes, too.
    fn answer_alarm(&mut self) {
        let now = Instant::now();
        let mut count = [0_u8; 8];
        let alarm = self.driver.as_ref().and_then(|driver| driver.memory_alarm());
        if alarm.is_some_and(|alarm| rustix::io::read(alarm, &mut count).is_ok()) {
            let rung = u64::from_ne_bytes(count);
            let falsely = rung.min(self.false_alarms);
            self.false_alarms -= falsely;
            if rung > falsely {
                self.alarm_until = Some(now + ALARM_LASTS);
            }
        }
        if self.alarm_until.is_none() {
            return;
        }
        if self.alarm_until.is_some_and(|until| until < now) {
            self.alarm_until = None;
        }
        for ward in self.jails.values_mut() {
            let Some(group) = &mut ward.group else { continue };
            if group.ran_out_of_memory(Path::new(template::HOST)) {
                // Nobody will say how the command ended: the counters do.
                group.rests_until = Some(now + COUNTERS_STAY);
                let _ = pidfd_send_signal(&ward.init, Signal::KILL);
            }
        }
    }

    /// The server is gone: so is everything it started.
    fn end(mut self) {
        let spares = self.pool.give_up_spares();
        self.retire_spares(spares);
        let blanks = self.pool.drain();
        self.retire(blanks);
        for ward in self.jails.values() {
            // An error means that it is dead already.
            let _ = pidfd_send_signal(&ward.init, Signal::KILL);
        }
        while let Ok(Some((pid, _))) = wait(WaitOptions::empty()) {
            self.leftovers.add(self.jails.remove(&pid).and_then(|ward| ward.group));
        }
        let retry = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };
        for _ in 0..400 {
            if self.leftovers.remove_all() {
                break;
            }
            let _ = poll(&mut [], Some(&retry));
        }
        if let Some(driver) = &self.driver {
            driver.remove();
        }
    }
}
