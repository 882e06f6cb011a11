//! The processes there are, and the rules for them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use rustix::process::Signal;
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::sync::{Semaphore, oneshot};
use tokio_util::task::TaskTracker;

use super::config::{ProcessConfig, ProcessConfigPatch};
use super::error::ProcessError;
use super::log::Log;
use super::owner::{self, Ask, Handle, Plan, State, until_exited};
use super::run;
use super::spawn::{Order, Spawner, signal_named};
use super::wire::{CreateRequest, ProcessInfo, RunRequest, RunResult, TerminalSize};
use crate::blocking::blocking;
use crate::config::Environment;
use crate::wire::now_ms;

/// Runs at once; others wait for their turn.
const RUNS: usize = 64;

/// Processes that are kept after their end, and bytes of their logs; the oldest go.
const EXITED: usize = 256;
const EXITED_BYTES: u64 = 512 * 1024 * 1024;

/// How long a request to end a process waits for it.
const END_WAIT: Duration = Duration::from_secs(2);
const LONGEST_END_WAIT: Duration = Duration::from_secs(60);

/// The processes of this server.
#[derive(Debug, Clone)]
pub(crate) struct Processes {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    spawner: Spawner,
    environment: Arc<Environment>,
    home: PathBuf,
    /// Where logs lie.
    scratch: PathBuf,
    /// Where limits are kept that a client has set.
    settings: PathBuf,
    owners: TaskTracker,
    runs: Semaphore,
    table: Mutex<Table>,
}

#[derive(Debug)]
struct Table {
    config: ProcessConfig,
    last: u64,
    processes: BTreeMap<u64, Arc<Process>>,
    /// The numbers of those that are being started.
    starting: BTreeSet<u64>,
}

/// A process.
#[derive(Debug)]
pub(super) struct Process {
    number: u64,
    command: String,
    args: Vec<String>,
    cwd: Option<String>,
    pub(super) tty: bool,
    interactive: bool,
    created_at_ms: u64,
    pub(super) handle: Handle,
}

impl Process {
    pub(super) fn id(&self) -> String {
        format!("proc_{}", self.number)
    }

    pub(super) fn is_running(&self) -> bool {
        matches!(*self.handle.state.borrow(), State::Running)
    }

    pub(super) fn info(&self) -> ProcessInfo {
        let (status, ended) = match *self.handle.state.borrow() {
            State::Running => ("running", None),
            State::Exited { ended, at_ms } => ("exited", Some((ended, at_ms))),
        };
        ProcessInfo {
            id: self.id(),
            command: self.command.clone(),
            args: self.args.clone(),
            cwd: self.cwd.clone(),
            tty: self.tty,
            interactive: self.interactive,
            owner: "user",
            status,
            pid: ended.is_none().then_some(self.handle.pid),
            exit_code: ended.and_then(|(ended, _)| ended.code),
            signal: ended.and_then(|(ended, _)| ended.signal),
            created_at_ms: self.created_at_ms,
            exited_at_ms: ended.map(|(_, at_ms)| at_ms),
        }
    }
}

impl Processes {
    pub(crate) fn new(
        spawner: Spawner,
        environment: Arc<Environment>,
        home: PathBuf,
        scratch: PathBuf,
        settings: PathBuf,
    ) -> Self {
        let kept = std::fs::read(&settings).ok();
        let kept = kept.and_then(|text| serde_json::from_slice(&text).ok());
        let config = kept.and_then(|patch| ProcessConfig::default().patched(&patch).ok());
        let table = Table {
            config: config.unwrap_or_default(),
            last: 0,
            processes: BTreeMap::new(),
            starting: BTreeSet::new(),
        };
        let inner = Inner {
            spawner,
            environment,
            home,
            scratch,
            settings,
            owners: TaskTracker::new(),
            runs: Semaphore::new(RUNS),
            table: Mutex::new(table),
        };
        Self { inner: Arc::new(inner) }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.inner.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn config(&self) -> ProcessConfig {
        self.table().config
    }

    pub(super) async fn configure(
        &self,
        patch: &ProcessConfigPatch,
    ) -> Result<ProcessConfig, ProcessError> {
        let config = {
            let mut table = self.table();
            table.config = table.config.patched(patch)?;
            table.config
        };
        let path = self.inner.settings.clone();
        let kept = blocking(move || {
            let text = serde_json::to_vec_pretty(&config)?;
            let fresh = path.with_extension("partial");
            std::fs::create_dir_all(path.parent().unwrap_or(&path))?;
            std::fs::write(&fresh, text).and_then(|()| std::fs::rename(fresh, path))
        });
        if let Err(error) = kept.await {
            // In force all the same, until this server ends.
            tracing::warn!(%error, "the limits of processes are not kept");
        }
        Ok(config)
    }

    /// Starts a process.
    pub(super) async fn create(&self, request: CreateRequest) -> Result<ProcessInfo, ProcessError> {
        check_command(&request.command)?;
        let starting = Starting::begin(self)?;
        let size = Winsize {
            ws_row: request.rows.unwrap_or(24),
            ws_col: request.cols.unwrap_or(80),
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let mut env = self.inner.environment.base.clone();
        if request.tty {
            env.insert("TERM".to_owned(), "xterm-256color".to_owned());
        }
        env.extend(request.env);
        let plan = Plan {
            command: request.command.clone(),
            args: request.args.clone(),
            cwd: self.directory(request.cwd.as_deref()),
            env,
            terminal: request.tty.then_some(size),
        };
        let (scratch, capacity) =
            (self.inner.scratch.clone(), self.config().max_log_bytes_per_process);
        let create = {
            let scratch = scratch.clone();
            move || Log::create(&scratch, capacity)
        };
        let log = match blocking(create).await {
            // No descriptor, or no room: what has ended gives back what it holds.
            Err(_) => {
                self.table().forget_all_exited();
                blocking(move || Log::create(&scratch, capacity)).await
            }
            made => made,
        };
        let log = log.map_err(|source| ProcessError::Os { what: "make a log", source })?;
        let (handle, owner) = owner::start(&self.inner.spawner, plan, Arc::new(log)).await?;
        let process = Arc::new(Process {
            number: starting.number,
            command: request.command,
            args: request.args,
            cwd: request.cwd,
            tty: request.tty,
            interactive: request.interactive,
            created_at_ms: now_ms(),
            handle,
        });
        self.inner.owners.spawn(owner);
        let info = process.info();
        starting.settle(process);
        Ok(info)
    }

    /// All of them, oldest first.
    pub(super) fn list(&self) -> Vec<ProcessInfo> {
        self.table().processes.values().map(|process| process.info()).collect()
    }

    pub(super) fn get(&self, id: &str) -> Result<Arc<Process>, ProcessError> {
        let number = id.strip_prefix("proc_").and_then(|number| number.parse::<u64>().ok());
        let found = number.and_then(|number| self.table().processes.get(&number).cloned());
        found.filter(|found| found.id() == id).ok_or_else(|| ProcessError::Unknown(id.to_owned()))
    }

    /// Sends a signal and waits for the end, not too long.
    pub(super) async fn end(
        &self,
        id: &str,
        default: Signal,
        named: Option<&str>,
        wait_ms: Option<u64>,
    ) -> Result<ProcessInfo, ProcessError> {
        let signal = match named {
            None | Some("") => default,
            Some(name) => signal_named(name).ok_or_else(|| {
                ProcessError::Invalid(format!("signal: there is no signal {name}"))
            })?,
        };
        let process = self.get(id)?;
        if process.is_running() {
            // A full queue: others have asked for its end already, or for too much.
            let _ = process.handle.signals.try_send(signal);
            let wait = wait_ms.map_or(END_WAIT, Duration::from_millis).min(LONGEST_END_WAIT);
            until_exited(&mut process.handle.state.clone(), wait).await;
        }
        Ok(process.info())
    }

    /// Forgets a process that has ended, and its log.
    pub(super) fn delete(&self, id: &str) -> Result<(), ProcessError> {
        let process = self.get(id)?;
        if process.is_running() {
            return Err(ProcessError::StillRunning);
        }
        self.table().processes.remove(&process.number);
        process.handle.forgotten.cancel();
        Ok(())
    }

    /// Gives a process something to read.
    pub(super) async fn input(
        &self,
        process: &Process,
        data: Bytes,
        eof: bool,
    ) -> Result<u64, ProcessError> {
        let most = self.config().max_input_bytes_per_request;
        if data.len() as u64 > most {
            return Err(ProcessError::TooMuchInput(most));
        }
        if !process.is_running() {
            return Err(ProcessError::NotRunning);
        }
        let (done, told) = oneshot::channel();
        let asked = process.handle.asks.send(Ask::Input { data, eof, done }).await;
        asked.map_err(|_| ProcessError::NotRunning)?;
        told.await.unwrap_or(Err(ProcessError::NotRunning))
    }

    pub(super) fn resize(process: &Process, size: TerminalSize) -> Result<(), ProcessError> {
        let terminal = process.handle.terminal.as_ref().ok_or(ProcessError::NoTerminal)?;
        if !process.is_running() {
            return Err(ProcessError::NotRunning);
        }
        let size = Winsize { ws_row: size.rows, ws_col: size.cols, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(terminal.get_ref(), size).map_err(|_| ProcessError::NotRunning)
    }

    /// Runs a command to its end.
    pub(super) async fn run(&self, request: RunRequest) -> Result<RunResult, ProcessError> {
        check_command(&request.command)?;
        let _turn =
            self.inner.runs.acquire().await.map_err(|_| super::spawn::SpawnError::Stopped)?;
        let mut env = self.inner.environment.base.clone();
        env.extend(request.env.clone());
        let order = |stdio| Order {
            command: request.command.clone(),
            args: request.args.clone(),
            cwd: Some(self.directory(request.cwd.as_deref())),
            env,
            stdio,
        };
        run::run(&self.inner.spawner, self.config(), &request, order).await
    }

    fn directory(&self, asked: Option<&str>) -> PathBuf {
        // An absolute path replaces the home.
        self.inner.home.join(asked.unwrap_or_default())
    }

    /// Ends all processes and forgets them.
    pub(crate) async fn end_all(&self) {
        let all = std::mem::take(&mut self.table().processes);
        for process in all.values() {
            process.handle.forgotten.cancel();
        }
        self.inner.owners.close();
        self.inner.owners.wait().await;
        self.inner.owners.reopen();
    }
}

/// A place among the processes at once, taken while one is being started.
struct Starting<'a> {
    processes: &'a Processes,
    number: u64,
}

impl<'a> Starting<'a> {
    fn begin(processes: &'a Processes) -> Result<Self, ProcessError> {
        let mut table = processes.table();
        let running =
            table.processes.values().filter(|process| process.is_running()).count() as u64;
        let most = table.config.max_concurrent_processes;
        if running + table.starting.len() as u64 >= most {
            return Err(ProcessError::TooMany(most));
        }
        table.last += 1;
        let number = table.last;
        table.starting.insert(number);
        drop(table);
        Ok(Self { processes, number })
    }

    /// It runs. In one step: nobody shall count it twice.
    fn settle(self, process: Arc<Process>) {
        let mut table = self.processes.table();
        table.starting.remove(&self.number);
        table.processes.insert(self.number, process);
        table.forget_the_oldest();
    }
}

impl Drop for Starting<'_> {
    fn drop(&mut self) {
        self.processes.table().starting.remove(&self.number);
    }
}

impl Table {
    fn forget_the_oldest(&mut self) {
        let (mut count, mut bytes) = (0, 0);
        let mut forgotten = Vec::new();
        for (number, process) in self.processes.iter().rev() {
            if process.is_running() {
                continue;
            }
            count += 1;
            bytes += process.handle.log.size();
            if count > EXITED || bytes > EXITED_BYTES {
                forgotten.push(*number);
            }
        }
        self.forget(&forgotten);
    }

    /// Gives back what those that have ended hold.
    fn forget_all_exited(&mut self) {
        let exited = self.processes.iter().filter(|(_, process)| !process.is_running());
        let exited: Vec<u64> = exited.map(|(number, _)| *number).collect();
        self.forget(&exited);
    }

    fn forget(&mut self, numbers: &[u64]) {
        for number in numbers {
            if let Some(process) = self.processes.remove(number) {
                process.handle.forgotten.cancel();
            }
        }
    }
}

fn check_command(command: &str) -> Result<(), ProcessError> {
    if command.trim().is_empty() {
        return Err(ProcessError::Invalid("command must not be empty".to_owned()));
    }
    Ok(())
}

/// What a client means by some input.
pub(super) fn decode(
    data: &str,
    encoding: Option<&str>,
    plain: bool,
) -> Result<Bytes, ProcessError> {
    match encoding {
        Some("utf8" | "text") => Ok(Bytes::copy_from_slice(data.as_bytes())),
        Some("base64") => STANDARD
            .decode(data)
            .map(Bytes::from)
            .map_err(|error| ProcessError::Invalid(format!("data is no base64: {error}"))),
        None if plain => Ok(Bytes::copy_from_slice(data.as_bytes())),
        None => Ok(STANDARD
            .decode(data)
            .map_or_else(|_| Bytes::copy_from_slice(data.as_bytes()), Bytes::from)),
        Some(_) => {
            Err(ProcessError::Invalid("encoding must be one of: base64, utf8, text".to_owned()))
        }
    }
}
