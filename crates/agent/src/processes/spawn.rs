//! Starting a program, and the handle on what was started.
//!
//! Programs are started by two threads of their own. Where this server is shielded, they live in a Landlock
//! domain, and with them whatever they start: nothing in it can signal or trace a process outside, this
//! server first of all.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;

use landlock::{
    ABI, Access as _, AccessFs, CompatLevel, Compatible as _, PathBeneath, PathFd, Ruleset,
    RulesetAttr as _, RulesetCreatedAttr as _, Scope,
};
use rustix::process::{
    Pid, PidfdFlags, Resource, Rlimit, Signal, WaitId, WaitIdOptions, getrlimit, pidfd_open,
    prlimit, setrlimit, waitid,
};
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

use super::tree;
use crate::blocking::{blocking, watched};
use crate::problem::{Code, Problem};

/// Starts that may wait for a thread.
const QUEUE: usize = 1024;

/// Threads that start programs: each waits until its child has executed.
const THREADS: usize = 2;

/// Where programs are looked for when an environment names no `PATH`.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Why a program could not be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpawnError {
    #[error("command {command} {why}")]
    Command { command: String, why: &'static str },
    #[error("cwd {cwd} {why}")]
    Cwd { cwd: String, why: &'static str },
    #[error("{0} must not contain a NUL character")]
    Nul(&'static str),
    #[error("failed to spawn {command}: {source}")]
    Os { command: String, source: io::Error },
    #[error("the server stops")]
    Stopped,
}

impl From<SpawnError> for Problem {
    fn from(error: SpawnError) -> Self {
        let code = match error {
            SpawnError::Command { .. } | SpawnError::Cwd { .. } | SpawnError::Nul(_) => {
                Code::InvalidRequest
            }
            SpawnError::Os { .. } | SpawnError::Stopped => Code::StreamError,
        };
        Self::new(code, error.to_string())
    }
}

/// A program to start.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) command: String,
    pub(crate) args: Vec<String>,
    pub(crate) cwd: Option<PathBuf>,
    /// Its whole environment.
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) stdio: Stdios,
}

/// Where its standard streams lead.
#[derive(Debug)]
pub(crate) enum Stdios {
    Apart {
        stdin: OwnedFd,
        stdout: OwnedFd,
        stderr: OwnedFd,
    },
    /// All three to a terminal, which becomes the controlling one.
    Terminal(OwnedFd),
}

type Ask = (Order, oneshot::Sender<Result<Spawned, SpawnError>>);

/// Starts programs.
#[derive(Debug, Clone)]
pub(crate) struct Spawner {
    asks: mpsc::SyncSender<Ask>,
    reaper: TaskTracker,
}

impl Spawner {
    /// Starts the threads. With `shield`, in a domain from which nothing outside can be signalled.
    ///
    /// # Errors
    ///
    /// If the kernel does not know such domains.
    pub(crate) fn start(shield: bool) -> io::Result<Self> {
        let limits = raise_descriptors();
        let (asks, waiting) = mpsc::sync_channel::<Ask>(QUEUE);
        let reaper = TaskTracker::new();
        let runtime = tokio::runtime::Handle::current();
        let waiting = Arc::new(Mutex::new(waiting));
        let (tell, told) = mpsc::channel();
        let work = {
            let reaper = reaper.clone();
            move || {
                let _runtime = runtime.enter();
                serve(&waiting, &reaper, limits);
            }
        };
        thread::Builder::new().name("spawn".to_owned()).spawn(move || {
            let restricted = if shield { restrict() } else { Ok(()) };
            let failed = restricted.is_err();
            drop(tell.send(restricted));
            if failed {
                return;
            }
            // Threads that this one starts are in its domain, too.
            for _ in 1..THREADS {
                drop(thread::Builder::new().name("spawn".to_owned()).spawn(work.clone()));
            }
            work();
        })?;
        told.recv().map_err(io::Error::other)??;
        Ok(Self { asks, reaper })
    }

    /// Starts a program.
    pub(crate) async fn spawn(&self, order: Order) -> Result<Spawned, SpawnError> {
        let (tell, told) = oneshot::channel();
        self.asks.try_send((order, tell)).map_err(|_| SpawnError::Stopped)?;
        told.await.map_err(|_| SpawnError::Stopped)?
    }

    /// Waits until everything that was dropped unfinished has been reaped.
    pub(crate) async fn drain(&self) {
        self.reaper.close();
        self.reaper.wait().await;
    }
}

/// Whether a shield costs the sandbox nothing: no privileges can be had here anyway, nor namespaces.
pub(crate) fn shield_is_free() -> bool {
    let alone = rustix::thread::no_new_privs().unwrap_or(false);
    let namespaces = std::fs::read_to_string("/proc/sys/user/max_user_namespaces");
    alone
        && !rustix::process::geteuid().is_root()
        && namespaces.is_ok_and(|most| most.trim() == "0")
}

/// Puts this thread, and what it starts, in a domain of its own.
fn restrict() -> io::Result<()> {
    rustix::thread::set_no_new_privs(true)?;
    let root = PathFd::new("/").map_err(io::Error::other)?;
    // Any domain forbids renames between directories unless it allows them: all are allowed.
    let restricted = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI::V2) & AccessFs::Refer)
        .and_then(|ruleset| ruleset.scope(Scope::Signal))
        .and_then(Ruleset::create)
        .and_then(|created| created.add_rule(PathBeneath::new(root, AccessFs::Refer)))
        .and_then(landlock::RulesetCreated::restrict_self);
    restricted.map(drop).map_err(|error| {
        io::Error::new(
            io::ErrorKind::Unsupported,
            format!("--shield needs Landlock with signal scopes (Linux 6.12): {error}"),
        )
    })
}

/// Many processes want many descriptors. What is started gets the former limit back.
fn raise_descriptors() -> Rlimit {
    let former = getrlimit(Resource::Nofile);
    // Where it cannot be raised, the kernel's refusal is told with the request that met it.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: former.maximum, ..former });
    former
}

fn serve(waiting: &Mutex<mpsc::Receiver<Ask>>, reaper: &TaskTracker, limits: Rlimit) {
    loop {
        let ask = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((order, tell)) = ask else { return };
        // Nobody who waits: what was started ends with being dropped.
        drop(tell.send(start(order, reaper, limits)));
    }
}

fn start(order: Order, reaper: &TaskTracker, limits: Rlimit) -> Result<Spawned, SpawnError> {
    check_text(&order)?;
    if let Some(cwd) = &order.cwd
        && !cwd.is_dir()
    {
        let why = if cwd.exists() { "is not a directory" } else { "does not exist" };
        return Err(SpawnError::Cwd { cwd: cwd.display().to_string(), why });
    }
    // Found by us: the reason is plain then, and the C library's way by `PATH` of the new environment
    // would copy this process first.
    let program = find(&order)?;
    let failed = |source| SpawnError::Os { command: order.command.clone(), source };
    #[expect(
        clippy::disallowed_methods,
        reason = "the sandbox agent's one place that starts programs"
    )]
    let mut command = Command::new(program);
    let mark = mark().map_err(failed)?;
    command.arg0(&order.command).args(&order.args).env_clear().envs(&order.env);
    command.env(tree::MARK, &mark);
    if let Some(cwd) = &order.cwd {
        command.current_dir(cwd);
    }
    match order.stdio {
        Stdios::Apart { stdin, stdout, stderr } => {
            command.process_group(0).stdin(stdin).stdout(stdout).stderr(stderr);
        }
        Stdios::Terminal(terminal) => {
            let twice = || terminal.try_clone().map_err(failed);
            command.stdin(twice()?).stdout(twice()?).stderr(Stdio::from(terminal));
            sys::lead_a_session(&mut command);
        }
    }
    let child = command.spawn().map_err(failed)?;
    let pid = Pid::from_raw(child.id().cast_signed())
        .ok_or_else(|| failed(io::Error::other("no pid")))?;
    let _ = prlimit(Some(pid), Resource::Nofile, limits);
    let exit = pidfd_open(pid, PidfdFlags::NONBLOCK).map_err(io::Error::from);
    let exit = exit.and_then(watched);
    match exit {
        Ok(exit) => Ok(Spawned {
            pid,
            exit: Some(exit),
            ended: None,
            mark,
            killed: AtomicBool::new(false),
            reaper: reaper.clone(),
        }),
        Err(error) => {
            tree::kill(pid, Signal::KILL);
            let _ = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED);
            Err(failed(error))
        }
    }
}

/// What nobody else has.
fn mark() -> io::Result<String> {
    let mut bytes = [0_u8; 12];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn check_text(order: &Order) -> Result<(), SpawnError> {
    let has_nul = |text: &String| text.contains('\0');
    if has_nul(&order.command) {
        return Err(SpawnError::Nul("command"));
    }
    if order.args.iter().any(has_nul) {
        return Err(SpawnError::Nul("args"));
    }
    let name = |name: &String| name.is_empty() || name.contains('=') || has_nul(name);
    if order.env.iter().any(|(key, value)| name(key) || has_nul(value)) {
        return Err(SpawnError::Nul("env, whose names are not empty and have no `=`,"));
    }
    Ok(())
}

/// The file that a command names, as `execvp` would find it with the new environment.
fn find(order: &Order) -> Result<PathBuf, SpawnError> {
    let missing = |why| SpawnError::Command { command: order.command.clone(), why };
    let from = order.cwd.as_deref().unwrap_or(Path::new("."));
    if order.command.contains('/') {
        let program = std::path::absolute(from.join(&order.command));
        let program = program.map_err(|_| missing("is no path"))?;
        return match executable(&program) {
            Found::Yes => Ok(program),
            Found::No => Err(missing("does not exist")),
            Found::Refused => Err(missing("is not executable")),
        };
    }
    let mut refused = false;
    let path = order.env.get("PATH").map_or(PATH, String::as_str);
    for directory in path.split(':').filter(|directory| !directory.is_empty()) {
        let program = std::path::absolute(from.join(directory).join(&order.command));
        let Ok(program) = program else { continue };
        match executable(&program) {
            Found::Yes => return Ok(program),
            Found::Refused => refused = true,
            Found::No => {}
        }
    }
    Err(missing(if refused { "is not executable" } else { "was not found on the PATH" }))
}

enum Found {
    Yes,
    No,
    Refused,
}

fn executable(program: &Path) -> Found {
    use rustix::fs::{Access, AtFlags, CWD, accessat};
    if !program.is_file() {
        return if program.exists() { Found::Refused } else { Found::No };
    }
    match accessat(CWD, program, Access::EXEC_OK, AtFlags::EACCESS) {
        Ok(()) => Found::Yes,
        Err(_) => Found::Refused,
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ended {
    /// `None` if a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<i32>,
}

/// A process that was started, and its group. Dropping it kills them.
#[derive(Debug)]
#[must_use = "dropping a process kills it"]
pub(crate) struct Spawned {
    pid: Pid,
    /// Its pidfd, until it has been reaped.
    exit: Option<AsyncFd<OwnedFd>>,
    ended: Option<Ended>,
    /// In its environment, and so in that of all it starts.
    mark: String,
    /// Whether all of it is to end.
    killed: AtomicBool,
    reaper: TaskTracker,
}

impl Spawned {
    pub(crate) fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().cast_unsigned()
    }

    /// Waits for its end and reaps it.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost if this is dropped midway; call it again.
    pub(crate) async fn wait(&mut self) -> io::Result<Ended> {
        if let Some(exit) = &self.exit {
            self.ended = Some(reap(exit).await?);
            self.exit = None;
        }
        if self.killed.load(Ordering::Relaxed) {
            self.end_strays().await;
        }
        self.ended.ok_or_else(|| io::Error::other("it was never started"))
    }

    /// Kills what it has started and what has left it: daemons.
    pub(crate) async fn end_strays(&self) {
        let mark = self.mark.clone();
        blocking(move || tree::kill_marked(&mark)).await;
    }

    /// Sends a signal to the process, its group, and what descends from it. Not once it is reaped: the
    /// number may be another's by then.
    pub(crate) fn signal(&self, signal: Signal) {
        if self.exit.is_some() {
            self.killed.fetch_or(signal == Signal::KILL, Ordering::Relaxed);
            tree::kill(self.pid, signal);
        }
    }
}

async fn reap(exit: &AsyncFd<OwnedFd>) -> io::Result<Ended> {
    loop {
        let mut ready = exit.readable().await?;
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        let waited = waitid(WaitId::PidFd(std::os::fd::AsFd::as_fd(exit.get_ref())), options)?;
        if let Some(status) = waited {
            return Ok(Ended { code: status.exit_status(), signal: status.terminating_signal() });
        }
        ready.clear_ready();
    }
}

impl Drop for Spawned {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        if let Some(exit) = self.exit.take() {
            let mark = std::mem::take(&mut self.mark);
            self.reaper.spawn(async move {
                drop(reap(&exit).await);
                blocking(move || tree::kill_marked(&mark)).await;
            });
        }
    }
}

/// A name for a signal, as clients write it: `SIGTERM`, `term`, `15`.
pub(super) fn signal_named(text: &str) -> Option<Signal> {
    if let Ok(number) = text.parse::<i32>() {
        return (1..32).contains(&number).then(|| Signal::from_named_raw(number)).flatten();
    }
    let name = text.to_ascii_uppercase();
    let signal = match name.strip_prefix("SIG").unwrap_or(&name) {
        "TERM" => Signal::TERM,
        "KILL" => Signal::KILL,
        "INT" => Signal::INT,
        "HUP" => Signal::HUP,
        "QUIT" => Signal::QUIT,
        "USR1" => Signal::USR1,
        "USR2" => Signal::USR2,
        "STOP" => Signal::STOP,
        "CONT" => Signal::CONT,
        "TSTP" => Signal::TSTP,
        "WINCH" => Signal::WINCH,
        "ABRT" => Signal::ABORT,
        "ALRM" => Signal::ALARM,
        "PIPE" => Signal::PIPE,
        _ => return None,
    };
    Some(signal)
}

/// Opens `/dev/null` for reading.
pub(crate) fn nothing() -> io::Result<OwnedFd> {
    Ok(std::fs::File::open(OsStr::new("/dev/null"))?.into())
}
