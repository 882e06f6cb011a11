//! The engine: owns the launcher, starts jails.

use std::io::{self, Seek as _, Write as _};
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use launch::message::{
    Command, Enforcement, Fault, Limits, Network, Offers, Preparation, Profile, Report, Spec, Tree,
};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::net::unix::pipe;
use tokio::sync::Mutex;

use crate::instance;
use crate::jail::{Jail, Running};
use crate::link::{self, Link, LinkError, watched};

/// How long a launcher may take to end the jails when the engine shuts down.
const SHUTDOWN: Duration = Duration::from_secs(5);

/// How an engine makes its jails.
#[derive(Debug, Clone)]
pub struct Config {
    /// Host user and group that jails run as when the engine is root.
    pub host_id: u32,
    /// Names that every jail's `/etc/hosts` gives an address.
    pub hosts: Vec<(String, IpAddr)>,
    /// A program whose `main` runs [`launch::run`] when [`launch::Role::from_argv0`] says so;
    /// usually our own.
    pub program: PathBuf,
}

/// Host id of jails where nobody chose one: far from the ids of people, services, and the ranges
/// that containers are commonly given.
const DEFAULT_HOST_ID: u32 = 1_878_982_656;

impl Config {
    /// The defaults, with this very program as the launcher.
    pub fn of_this_program() -> io::Result<Self> {
        Ok(Self { host_id: DEFAULT_HOST_ID, hosts: Vec::new(), program: std::env::current_exe()? })
    }
}

/// What to run, and in what.
#[derive(Debug, Clone)]
pub struct Start {
    pub command: Command,
    pub stdin: Stdin,
    pub workspace: Tree,
    pub output: Tree,
    /// A file name and its content, put into a fresh workspace.
    pub code: Option<(String, String)>,
    pub flavors: Vec<(String, PathBuf)>,
    pub network: Network,
    pub profile: Profile,
    pub limits: Limits,
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
    #[error("the jail's init died before it was ready{}", if *oom { ": its memory limit is too low" } else { "" })]
    Died { oom: bool },
}

/// Starts jails. Cheap to clone; the launcher ends with the last clone.
#[derive(Debug, Clone)]
pub struct Engine(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: Config,
    link: Mutex<Option<Arc<Link>>>,
    offers: Offers,
    next_jail: AtomicU64,
}

impl Engine {
    /// Starts the launcher, and removes what engines before left behind when they were killed.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        launch::cgroup::sweep(Path::new("/"), instance::is_alive);
        let link = Arc::new(start_link(&config).await?);
        let offers = link.offers.clone();
        Ok(Self(Arc::new(Inner {
            config,
            link: Mutex::new(Some(link)),
            offers,
            next_jail: AtomicU64::new(1),
        })))
    }

    /// What this machine can enforce.
    pub fn offers(&self) -> &Offers {
        &self.0.offers
    }

    /// Makes a jail and starts a command in it. When this returns, every protection is in force.
    pub async fn spawn(&self, start: Start) -> Result<Running, SpawnError> {
        let began = Instant::now();
        let jail = self.0.next_jail.fetch_add(1, Ordering::Relaxed);
        let pipes = Pipes::open(&start).map_err(SpawnError::Pipes)?;
        let link = self.link().await?;
        let answer = link.ask(spec(jail, &start), &pipes.lent()).await?;
        let (pid, place, init) = answer.map_err(refusal)?;
        let Pipes { report, ours, stdin, stdout, stderr, .. } = pipes;
        // Theirs must go, or the end of the output would never show.
        drop(report);
        let ours = watched(ours).map_err(SpawnError::Pipes)?;
        let mut jail = Jail::new(pid, init, place, ours, began).map_err(SpawnError::Pipes)?;
        let (enforced, listeners) = jail.ready().await?;
        Ok(Running {
            jail,
            stdin: stdin
                .1
                .map(pipe::Sender::from_owned_fd)
                .transpose()
                .map_err(SpawnError::Pipes)?,
            stdout: pipe::Receiver::from_owned_fd(stdout.1).map_err(SpawnError::Pipes)?,
            stderr: pipe::Receiver::from_owned_fd(stderr.1).map_err(SpawnError::Pipes)?,
            listeners,
            enforced,
        })
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
        sweep_own().await;
    }

    /// The launcher, a new one if the last has died.
    async fn link(&self) -> Result<Arc<Link>, LinkError> {
        let mut current = self.0.link.lock().await;
        if let Some(link) = current.as_ref().filter(|link| link.is_alive()) {
            return Ok(Arc::clone(link));
        }
        tracing::warn!("the launcher died; starting another");
        sweep_own().await;
        let link = Arc::new(start_link(&self.0.config).await?);
        *current = Some(Arc::clone(&link));
        Ok(link)
    }
}

/// Removes what a launcher of ours left that was killed. Its jails are dead; the kernel may take a
/// moment to count them out.
async fn sweep_own() {
    let own = instance::name();
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

async fn start_link(config: &Config) -> Result<Link, LinkError> {
    let preparation = Preparation {
        host_id: config.host_id,
        hosts: config.hosts.clone(),
        instance: instance::name(),
        server_pid: std::process::id(),
    };
    Link::start(&config.program, preparation).await
}

fn spec(jail: u64, start: &Start) -> Spec {
    Spec {
        jail,
        command: start.command.clone(),
        workspace: start.workspace.clone(),
        output: start.output.clone(),
        code: start.code.as_ref().map(|(name, _)| name.clone()),
        flavors: start.flavors.clone(),
        network: start.network.clone(),
        profile: start.profile,
        limits: start.limits,
        enforcement: start.enforcement,
    }
}

fn refusal(fault: Fault) -> SpawnError {
    if fault.errno == rustix::io::Errno::OPNOTSUPP.raw_os_error() {
        SpawnError::Unenforceable(fault)
    } else {
        SpawnError::Setup(fault)
    }
}

/// What a jail and its owner speak through; of each pair, theirs first.
struct Pipes {
    report: OwnedFd,
    ours: OwnedFd,
    stdin: (OwnedFd, Option<OwnedFd>),
    stdout: (OwnedFd, OwnedFd),
    stderr: (OwnedFd, OwnedFd),
    code: Option<OwnedFd>,
}

impl Pipes {
    fn open(start: &Start) -> io::Result<Self> {
        let (ours, report) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        rustix::io::ioctl_fionbio(&ours, true)?;
        let stdin = match start.stdin {
            Stdin::Empty => (std::fs::File::open("/dev/null")?.into(), None),
            Stdin::Piped => {
                let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
                (read, Some(write))
            }
        };
        let (stdout, stderr) = (pipe_with(PipeFlags::CLOEXEC)?, pipe_with(PipeFlags::CLOEXEC)?);
        let code = start.code.as_ref().map(|(_, text)| in_memory(text)).transpose()?;
        Ok(Self {
            report,
            ours,
            stdin,
            stdout: (stdout.1, stdout.0),
            stderr: (stderr.1, stderr.0),
            code,
        })
    }

    /// What is handed to the launcher, in the order it expects.
    fn lent(&self) -> Vec<std::os::fd::BorrowedFd<'_>> {
        let always = [&self.report, &self.stdin.0, &self.stdout.0, &self.stderr.0];
        always.into_iter().chain(&self.code).map(AsFd::as_fd).collect()
    }
}

fn in_memory(text: &str) -> io::Result<OwnedFd> {
    let mut file = std::fs::File::from(memfd_create("code", MemfdFlags::CLOEXEC)?);
    file.write_all(text.as_bytes())?;
    file.rewind()?;
    Ok(file.into())
}

impl Jail {
    /// Waits until init says that everything is in force.
    async fn ready(&mut self) -> Result<(Vec<String>, Vec<OwnedFd>), SpawnError> {
        match link::receive::<Report>(self.report()).await {
            Ok(Some((Report::Ready { enforced, not_executed }, listeners))) => {
                self.not_executed = not_executed;
                Ok((enforced, listeners))
            }
            Ok(Some((Report::Failed(fault), _))) => Err(refusal(fault)),
            Ok(Some(_) | None) | Err(_) => {
                Err(SpawnError::Died { oom: self.statistics().oom_kills > 0 })
            }
        }
    }
}
