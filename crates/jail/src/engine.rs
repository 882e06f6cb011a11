//! The engine: owns the launcher, starts jails.

use std::io::{self, Seek as _, Write as _};
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use launch::cgroup::{Counters, Place};
use launch::message::{
    Command, Enforcement, Exit, Fault, Layers, Limits, Network, Offers, Pool, Preparation, Profile,
    Report, Request, Spec, Standing, Tree,
};
use launch::{Execution, UidMap};
use rustix::fs::{MemfdFlags, memfd_create};
use tokio::io::unix::AsyncFd;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::ahead::{self, Ahead, Slot};
use crate::instance;
use crate::jail::{Jail, Running};
use crate::lingering::{self, Lingering};
use crate::link::{self, Asked, Link, LinkError, Refusal, watched};
use crate::pipes::Pipes;
use crate::program;

/// How long a launcher may take to end the jails when the engine shuts down.
const SHUTDOWN: Duration = Duration::from_secs(5);

/// How long a jail may take to be ready, on a machine that is busy.
const READY: Duration = Duration::from_secs(60);

/// How an engine makes its jails.
#[derive(Debug, Clone)]
pub struct Config {
    /// Names that every jail's `/etc/hosts` gives an address.
    pub hosts: Vec<(String, IpAddr)>,
    /// A program whose `main` runs [`launch::run`] when [`launch::Role::from_argv0`] says so;
    /// usually our own.
    pub program: PathBuf,
    /// Blank jails kept ready. None by default: one command needs none.
    pub pool: Pool,
    /// Protections to leave out; heard only by a build for tests.
    pub left_out: Vec<String>,
}

/// Host id of jails where nobody chose one: far from the ids of people, services, and the ranges
/// that containers are commonly given.
pub const DEFAULT_HOST_ID: u32 = 1_878_982_656;

/// [`DEFAULT_HOST_ID`]; where that is unknown (in a container, whose ids are few), one of those that are known. If they
/// are too few for that, there will be no jail, and an error that says so.
pub fn default_host_id() -> u32 {
    static ID: LazyLock<u32> = LazyLock::new(|| match UidMap::own().jails() {
        (first, 1..) => first,
        (_, 0) => DEFAULT_HOST_ID,
    });
    *ID
}

/// How many host ids jails may have from this one on. An ordinary user's jails all run as that user, whatever their id.
pub fn host_ids_from(first: u32) -> u32 {
    host_ids(&UidMap::own(), rustix::process::geteuid().is_root(), first)
}

fn host_ids(known: &UidMap, is_root: bool, first: u32) -> u32 {
    if is_root { known.room_from(first) } else { u32::MAX }
}

impl Config {
    /// The defaults, with this very program as the launcher.
    pub fn of_this_program() -> io::Result<Self> {
        Ok(Self {
            hosts: Vec::new(),
            program: std::env::current_exe()?,
            pool: Pool::NONE,
            left_out: Vec::new(),
        })
    }
}

/// What to run, and in what.
#[derive(Debug, Clone)]
pub struct Start {
    /// The first command, with whose end the jail ends. Without one it waits for
    /// [`Jail::start`](crate::Jail::start).
    pub command: Option<Command>,
    /// Host user and group the jail runs as when the engine is root. Those of one tenant must be
    /// nobody else's: what the kernel counts by user, it counts by this one.
    pub host_id: u32,
    pub stdin: Stdin,
    pub workspace: Tree,
    pub output: Tree,
    /// What [`Tree::Layered`] shows a part of.
    pub layers: Option<Layers>,
    /// A root file system, read-only, in place of the machine's system directories: one that was made
    /// ready with [`IMAGE_DIRECTORIES`](crate::IMAGE_DIRECTORIES) and [`IMAGE_FILES`](crate::IMAGE_FILES).
    pub image: Option<PathBuf>,
    /// A file name and its content, put into a fresh workspace.
    pub code: Option<(String, String)>,
    pub flavors: Vec<(String, PathBuf)>,
    pub network: Network,
    pub profile: Profile,
    pub limits: Limits,
    /// CPU time of the whole jail, user and system together.
    pub cpu_time: Option<Duration>,
    pub enforcement: Enforcement,
}

/// What a command reads as its standard input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stdin {
    Empty,
    Piped,
}

/// Why there is no engine.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct StartError(#[from] LinkError);

/// Why there is no jail.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    #[error("could not make the jail's pipes")]
    Pipes(#[source] io::Error),
    #[error(transparent)]
    Launcher(#[from] LinkError),
    /// A step of setting up the jail failed. Nothing untrusted has run.
    #[error("could not set up the jail: {0}")]
    Setup(#[source] Fault),
    /// A limit or protection that was asked for cannot be had on this machine.
    #[error("{0}")]
    Unenforceable(#[source] Fault),
    #[error("the jail was not ready in {} s", READY.as_secs())]
    Slow,
    #[error("the jail's init died before it was ready{}", if *oom { ": its memory limit is too low" } else { "" })]
    Died { oom: bool },
}

/// Starts jails. Cheap to clone; the launcher ends with the last clone.
#[derive(Debug, Clone)]
pub struct Engine(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: Config,
    /// Of the cgroup that holds its jails.
    name: String,
    /// The sealed copy that every launcher of this engine is started from.
    program: OwnedFd,
    link: Mutex<Option<Arc<Link>>>,
    offers: Offers,
    next_jail: AtomicU64,
    lingering: Arc<Lingering>,
    counters: Arc<Counters>,
    ahead: Arc<Slot>,
    _background: JoinSet<()>,
}

impl Engine {
    /// Starts the launcher, and removes what engines before left behind when they were killed.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        launch::cgroup::sweep(Path::new("/"), instance::is_alive);
        let name = instance::name();
        let program = program::sealed_copy(&config.program).map_err(LinkError::Start)?;
        let link = Arc::new(start_link(&config, &name, &program).await?);
        let offers = link.offers.clone();
        let lingering = Arc::new(Lingering::default());
        let mut background = JoinSet::new();
        background.spawn(lingering::end(Arc::clone(&lingering)));
        let ahead = Arc::new(Slot::default());
        background.spawn(ahead::keep_filled(Arc::clone(&ahead)));
        Ok(Self(Arc::new(Inner {
            config,
            name,
            program,
            link: Mutex::new(Some(link)),
            offers,
            next_jail: AtomicU64::new(1),
            lingering,
            counters: Arc::default(),
            ahead,
            _background: background,
        })))
    }

    /// What this machine can enforce.
    pub fn offers(&self) -> &Offers {
        &self.0.offers
    }

    /// Makes a jail and starts a command in it. When this returns, every protection is in force.
    pub async fn spawn(&self, start: Start) -> Result<Running, SpawnError> {
        let began = Instant::now();
        self.0.lingering.note_start();
        let jail = self.0.next_jail.fetch_add(1, Ordering::Relaxed);
        let request = Request::Start(Box::new(spec(jail, &start)?));
        let Belongings { report, ours, pipes, code } = self
            .0
            .ahead
            .take()
            .and_then(|ahead| Belongings::of(&start, ahead))
            .map_err(SpawnError::Pipes)?;
        let mut link = self.link().await?;
        let (theirs, pipes) = pipes.unzip();
        let lent: Vec<_> = std::iter::once(&report)
            .chain(theirs.iter().flatten())
            .chain(&code)
            .map(AsFd::as_fd)
            .collect();
        let asked = loop {
            match link.ask(jail, &request, &lent).await {
                // It has died, and we are the first to notice. It was told nothing: the next one is.
                Err(LinkError::Speak(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
                    link.bury();
                }
                asked => break asked?,
            }
            link = self.link().await?;
        };
        // Theirs must go, or the end of the output would never show.
        drop((report, theirs));
        let ours = watched(ours).map_err(SpawnError::Pipes)?;
        // On a failure from here on, init finds its report socket closed, and ends.
        let ready = timeout(READY, readiness(&ours, asked));
        let Readiness { init, pid, place, enforced, not_executed, ended, listeners } =
            ready.await.map_err(|_| SpawnError::Slow)??;
        if listeners.len() != start.network.listeners.len() {
            return Err(SpawnError::Setup(link::out_of_descriptors()));
        }
        let enforced = with_cpu_time(&start, place.as_ref(), enforced)?;
        let ends = (Arc::clone(&self.0.lingering), Arc::clone(&self.0.counters));
        let mut jail = Jail::new(pid, init, place, ours, ends, began);
        jail.not_executed = not_executed;
        jail.exit = ended;
        jail.limit_cpu_time(start.cpu_time);
        Ok(Running { jail, pipes, listeners, enforced })
    }

    /// Keeps blank jails ready for starts like this one, as far as the pool goes. Nothing is started.
    pub async fn warm(&self, start: &Start) -> Result<(), SpawnError> {
        Ok(self.link().await?.warm(spec(0, start)?).await?)
    }

    /// The name of the cgroup, in each hierarchy, that holds this engine's jails and nothing else.
    pub fn cgroup_name(&self) -> &str {
        &self.0.name
    }

    /// The launcher's process id; `None` when it has gone.
    pub async fn launcher_pid(&self) -> Option<u32> {
        self.current().await?.process_id()
    }

    /// How many blank jails are ready; `None` when the launcher has gone.
    pub async fn blanks(&self) -> Option<usize> {
        self.current().await?.blanks().await.ok()
    }

    /// Ends the launcher and every jail, and waits until they are gone.
    pub async fn shutdown(&self) {
        let Some(link) = self.0.link.lock().await.take() else { return };
        let Some(mut process) = link.take_process() else { return };
        drop(link);
        let deadline = Instant::now() + SHUTDOWN;
        // The link's socket closes when the last request in flight is dropped.
        while matches!(process.try_wait(), Ok(None)) && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        if matches!(process.try_wait(), Ok(None)) {
            tracing::error!("the launcher did not end in time; killing it");
            drop(process.kill());
            drop(process.wait());
        }
        sweep_own(&self.0.name).await;
    }

    /// The launcher, if it is there.
    async fn current(&self) -> Option<Arc<Link>> {
        let current = self.0.link.lock().await;
        current.as_ref().filter(|link| link.is_alive()).map(Arc::clone)
    }

    /// The launcher, a new one if the last has died.
    async fn link(&self) -> Result<Arc<Link>, LinkError> {
        let mut current = self.0.link.lock().await;
        // Taken away by a shutdown, for good.
        if current.is_none() {
            return Err(LinkError::Gone);
        }
        if let Some(link) = current.as_ref().filter(|link| link.is_alive()) {
            return Ok(Arc::clone(link));
        }
        // It finds the groups of the dead one's jails itself.
        tracing::warn!("the launcher died; starting another");
        let link = Arc::new(start_link(&self.0.config, &self.0.name, &self.0.program).await?);
        *current = Some(Arc::clone(&link));
        Ok(link)
    }
}

/// Removes what a launcher of ours left that was killed. Its jails are dead; the kernel may take a
/// moment to count them out.
async fn sweep_own(own: &str) {
    for _ in 0..20 {
        let left = launch::cgroup::sweep(Path::new("/"), |other| {
            other != own && instance::is_alive(other)
        });
        if left == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn start_link(config: &Config, name: &str, program: &OwnedFd) -> Result<Link, LinkError> {
    let preparation = Preparation {
        hosts: config.hosts.clone(),
        instance: name.to_owned(),
        server_pid: std::process::id(),
        pool: config.pool,
        left_out: config.left_out.clone(),
    };
    Link::start(program, preparation).await
}

fn spec(jail: u64, start: &Start) -> Result<Spec, SpawnError> {
    let command = start.command.as_ref().map(Execution::new);
    Ok(Spec {
        jail,
        host_id: start.host_id,
        command: command.transpose().map_err(SpawnError::Setup)?,
        workspace: start.workspace.clone(),
        output: start.output.clone(),
        layers: start.layers.clone(),
        image: start.image.clone(),
        code: start.code.as_ref().map(|(name, _)| name.clone()),
        flavors: start.flavors.clone(),
        network: start.network.clone(),
        profile: start.profile,
        limits: start.limits,
        enforcement: start.enforcement,
    })
}

/// CPU time is watched from here: whether it can be is known when there is a group.
fn with_cpu_time(
    start: &Start,
    place: Option<&Place>,
    mut enforced: Vec<String>,
) -> Result<Vec<String>, SpawnError> {
    if start.cpu_time.is_some() {
        match (place.and_then(|place| place.cpu.as_ref()), start.enforcement) {
            (Some(_), _) => enforced.push("cpu-time".to_owned()),
            (None, Enforcement::BestEffort) => {}
            (None, Enforcement::Required) => {
                let step = "limit cpu time: no cgroup counts it here".to_owned();
                let errno = rustix::io::Errno::OPNOTSUPP.raw_os_error();
                return Err(SpawnError::Unenforceable(Fault { step, errno }));
            }
        }
    }
    Ok(enforced)
}

fn refusal(fault: Fault) -> SpawnError {
    if fault.errno == rustix::io::Errno::OPNOTSUPP.raw_os_error() {
        SpawnError::Unenforceable(fault)
    } else {
        SpawnError::Setup(fault)
    }
}

/// What a jail and its owner speak through, and what it is given.
struct Belongings {
    report: OwnedFd,
    ours: OwnedFd,
    /// The command's ends, and ours.
    pipes: Option<([OwnedFd; 3], Pipes)>,
    code: Option<OwnedFd>,
}

impl Belongings {
    fn of(start: &Start, ahead: Ahead) -> io::Result<Self> {
        let Ahead { report, ours, ends } = ahead;
        let pipes = start.command.as_ref().map(|_| ends.open(start.stdin)).transpose()?;
        let code = start.code.as_ref().map(|(_, text)| in_memory(text)).transpose()?;
        Ok(Self { report, ours, pipes, code })
    }
}

fn in_memory(text: &str) -> io::Result<OwnedFd> {
    let mut file = std::fs::File::from(memfd_create("code", MemfdFlags::CLOEXEC)?);
    file.write_all(text.as_bytes())?;
    file.rewind()?;
    Ok(file.into())
}

/// What init says of a jail that is ready.
struct Readiness {
    init: OwnedFd,
    pid: u32,
    place: Option<Place>,
    enforced: Vec<String>,
    /// The errno of an `exec` that failed.
    not_executed: Option<i32>,
    /// How the command has ended, if it has already.
    ended: Option<Exit>,
    /// The sockets bound inside.
    listeners: Vec<OwnedFd>,
}

/// Waits until init says that everything is in force. If the caller goes away, init finds its report
/// socket closed, and ends.
async fn readiness(
    report: &AsyncFd<OwnedFd>,
    mut asked: Asked<'_>,
) -> Result<Readiness, SpawnError> {
    let said = tokio::select! {
        said = link::receive::<Report>(report) => said,
        refusal = asked.refused() => return Err(never_ready(refusal?)),
    };
    match said {
        Ok(Some((Report::Ready { standing, not_executed, ended }, descriptors))) => {
            let Standing { pid, place, enforced } =
                launch::wire::decode(&standing).map_err(LinkError::Speak)?;
            let mut descriptors = descriptors.into_iter();
            // The server is out of descriptors, and the kernel kept this one back.
            let init = descriptors.next().ok_or(link::out_of_descriptors());
            let init = init.map_err(SpawnError::Setup)?;
            let listeners = descriptors.collect();
            Ok(Readiness { init, pid, place, enforced, not_executed, ended, listeners })
        }
        Ok(Some((Report::Failed(fault), _))) => Err(refusal(fault)),
        // Nobody has the other end: the launcher knows why.
        Ok(Some(_) | None) | Err(_) => Err(never_ready(asked.inquire().await?)),
    }
}

fn never_ready(why: Refusal) -> SpawnError {
    match why {
        Refusal::Refused(fault) => refusal(fault),
        Refusal::Died { oom } => SpawnError::Died { oom },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ordinary_user_in_a_container_has_room_for_every_tenant() {
        let one = UidMap::parse("1000 1000 1\n");
        assert_eq!(host_ids(&one, false, DEFAULT_HOST_ID), u32::MAX);
        assert_eq!(host_ids(&one, true, DEFAULT_HOST_ID), 0);
    }
}
