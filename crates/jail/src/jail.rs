//! A jail that runs.
//!
//! ```text
//!              the command exits
//!   Running ──────────────────────▶ Ended: statistics read, then everything left in it killed
//!      │                              ▲
//!      ├── the deadline passes ───────┤
//!      ├── init dies (out of memory) ─┤
//!      └── kill, or drop ─────────────┘
//! ```
//!
//! An init that is alone after its command's end is no concern of who waits for that: see
//! [`crate::lingering`].

use std::collections::HashSet;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use launch::Execution;
use launch::cgroup::{self, Counters, Place, Statistics};
use launch::message::{Command, Exit, FIRST, Further, Listener, Order};
use rustix::net::sockopt::socket_error;
use rustix::process::Signal;
use tokio::io::unix::AsyncFd;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio::time::{sleep, timeout_at};

use crate::conversation::{Conversation, OrderError};
use crate::lingering::{Init, Lingering};
use crate::link::watched;
use crate::mapped;
use crate::pipes::{Ends, Pipes};
use crate::process::{Process, Stdio, Streams};

/// A jail and the ends of its streams.
#[derive(Debug)]
pub struct Running {
    pub jail: Jail,
    /// The first command's, if there is one.
    pub pipes: Option<Pipes>,
    /// The sockets bound inside, in the order asked.
    pub listeners: Vec<OwnedFd>,
    /// Protections and limits in force, by name.
    pub enforced: Vec<String>,
}

/// How long processes may take to stop.
const FREEZE: Duration = Duration::from_secs(10);

/// How long it is looked for without a pause whether they have.
const SOON: Duration = Duration::from_micros(500);

/// A running jail. No process in it outlives this value, but for its init, which does nothing more then.
#[derive(Debug)]
#[must_use = "dropping a jail kills all that runs in it"]
pub struct Jail {
    init: Arc<Init>,
    lingering: Arc<Lingering>,
    counters: Arc<Counters>,
    /// Whether the command has ended and left nothing to kill.
    alone: bool,
    place: Option<Place>,
    /// The first command's end, as long as it was not seen.
    first: oneshot::Receiver<Exit>,
    pub(crate) exit: Option<Exit>,
    cpu_limit: Option<Duration>,
    began: Instant,
    /// The errno of an `exec` that failed.
    pub(crate) not_executed: Option<i32>,
}

/// How a command ended, and what it used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    pub exit: Exit,
    pub timed_out: bool,
    /// Whether the jail's CPU time was used up.
    pub cpu_exhausted: bool,
    pub oom_killed: bool,
    /// From the request for the jail to the end of its command.
    pub duration: Duration,
    /// Absent where there is no cgroup to count in.
    pub statistics: Option<Statistics>,
    /// The errno of an `exec` that failed; the exit code is then 126 or 127.
    pub not_executed: Option<i32>,
}

impl Outcome {
    /// The exit code as a shell gives it: 128 + n for signal n.
    pub fn exit_code(&self) -> i32 {
        match self.exit {
            Exit::Code(code) => code,
            Exit::Signal(signal) => 128 + signal,
        }
    }
}

/// Connects to ports of a jail. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Connector(Arc<Conversation>);

impl Connector {
    /// Connects to a port that something inside listens on, on the loopback interface. In a closed network (without
    /// loopback, or isolated) it is refused where the jail's commands are: by Landlock.
    pub async fn connect(&self, port: u16) -> Result<TcpStream, OrderError> {
        let socket = self.0.socket(|request| Order::Connect { request, port }).await?;
        let stream = TcpStream::from_std(socket.into()).map_err(OrderError::Speak)?;
        stream.writable().await.map_err(OrderError::Speak)?;
        match socket_error(&stream) {
            Ok(Ok(())) => Ok(stream),
            Ok(Err(error)) | Err(error) => Err(OrderError::Speak(error.into())),
        }
    }
}

impl Jail {
    pub(crate) fn new(
        pid: u32,
        init: OwnedFd,
        place: Option<Place>,
        report: AsyncFd<OwnedFd>,
        (lingering, counters): (Arc<Lingering>, Arc<Counters>),
        began: Instant,
    ) -> Self {
        let (conversation, first) = Conversation::new(report);
        Self {
            init: Arc::new(Init { pid, process: init, conversation: Arc::new(conversation) }),
            lingering,
            counters,
            alone: false,
            place,
            first,
            exit: None,
            cpu_limit: None,
            began,
            not_executed: None,
        }
    }

    /// Ends the jail when all of it together has used this much CPU time.
    pub(crate) fn limit_cpu_time(&mut self, limit: Option<Duration>) {
        self.cpu_limit = limit;
    }

    /// Process id of the jail's init, on the host.
    pub fn pid(&self) -> u32 {
        self.init.pid
    }

    /// What the jail used so far; zeroes where there is no cgroup.
    pub fn statistics(&self) -> Statistics {
        self.counted().unwrap_or_default()
    }

    fn counted(&self) -> Option<Statistics> {
        self.place.as_ref().map(|place| self.counters.statistics(place))
    }

    /// Whether there is a cgroup to count in.
    pub fn is_counted(&self) -> bool {
        self.place.is_some()
    }

    /// The errno of an `exec` that failed: the command never ran, and exits with 126 or 127.
    pub fn not_executed(&self) -> Option<i32> {
        self.not_executed
    }

    /// Waits for the first command's end, for at most `limit` from the jail's start. Whatever else
    /// still runs in the jail is killed then.
    ///
    /// # Cancel safety
    ///
    /// May be dropped and called again.
    pub async fn wait(&mut self, limit: Duration) -> Outcome {
        let deadline = tokio::time::Instant::from_std(self.began + limit);
        let (counters, place) = (Arc::clone(&self.counters), self.place.clone());
        let cpu = cpu_exhausted(&counters, place.as_ref(), self.cpu_limit);
        let (exit, cpu_exhausted) = tokio::select! {
            exit = timeout_at(deadline, self.end()) => (exit.ok(), false),
            () = cpu => (None, true),
        };
        let statistics = self.counted();
        let oom_killed = statistics.is_some_and(|statistics| statistics.oom_kills > 0);
        self.alone = exit.is_some() && statistics.as_ref().is_some_and(Lingering::may);
        if !self.alone {
            self.kill();
        }
        Outcome {
            timed_out: exit.is_none() && !cpu_exhausted,
            cpu_exhausted,
            exit: exit.unwrap_or(Exit::Signal(Signal::KILL.as_raw())),
            oom_killed,
            duration: self.began.elapsed(),
            statistics,
            not_executed: self.not_executed,
        }
    }

    /// Waits for the first command's end, and leaves the jail as it is.
    ///
    /// # Cancel safety
    ///
    /// May be dropped and called again.
    pub async fn end(&mut self) -> Exit {
        if let Some(exit) = self.exit {
            return exit;
        }
        let killed = Exit::Signal(Signal::KILL.as_raw());
        let end = self.init.conversation.end_of_first(&mut self.first);
        let exit = end.await.unwrap_or(killed);
        self.exit = Some(exit);
        exit
    }

    /// Sends a signal to the first command and its process group.
    pub async fn signal(&self, signal: i32) -> Result<(), OrderError> {
        self.init.conversation.tell(&Order::Signal { process: FIRST, signal }).await
    }

    /// Starts one more command, in a session of its own, under the same walls as the first.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it completes, the command may have been started; it ends with the jail.
    pub async fn start(&self, command: Command, stdio: Stdio) -> Result<Process, OrderError> {
        self.begin(command, stdio, false).await
    }

    /// The same, and what is left of the command's session ends with it, before its end is told.
    ///
    /// # Cancel safety
    ///
    /// As of [`Jail::start`].
    pub async fn start_whole(&self, command: Command, stdio: Stdio) -> Result<Process, OrderError> {
        self.begin(command, stdio, true).await
    }

    async fn begin(
        &self,
        command: Command,
        stdio: Stdio,
        whole: bool,
    ) -> Result<Process, OrderError> {
        let command = Execution::new(&command).map_err(OrderError::Refused)?;
        let number = self.init.conversation.number();
        let (lent, pipes, terminal) = match stdio {
            Stdio::Pipes { stdin } => {
                let (lent, pipes) =
                    Ends::new().and_then(|ends| ends.open(stdin)).map_err(OrderError::Speak)?;
                (Vec::from(lent), Some(pipes), None)
            }
            Stdio::Terminal(size) => (Vec::new(), None, Some(size)),
        };
        let further = Further { process: number, command, terminal, whole };
        let (not_executed, owner, ended) = self.init.conversation.start(further, &lent).await?;
        drop(lent);
        let streams = match (pipes, owner) {
            (Some(pipes), _) => Streams::Pipes(pipes),
            (None, Some(owner)) => {
                rustix::io::ioctl_fionbio(&owner, true)
                    .map_err(|error| OrderError::Speak(error.into()))?;
                Streams::Terminal(watched(owner).map_err(OrderError::Speak)?)
            }
            (None, None) => return Err(OrderError::Gone),
        };
        Ok(Process {
            conversation: Arc::clone(&self.init.conversation),
            number,
            ended,
            exit: None,
            not_executed,
            streams: Some(streams),
        })
    }

    /// Connects to a port that something inside listens on, on the loopback interface.
    pub async fn connect(&self, port: u16) -> Result<TcpStream, OrderError> {
        self.connector().connect(port).await
    }

    /// What connects as [`Jail::connect`] does, while somebody else waits for the jail's end.
    pub fn connector(&self) -> Connector {
        Connector(Arc::clone(&self.init.conversation))
    }

    /// Binds one more socket inside, and hands it out. In a closed network it is refused, as [`Jail::connect`] is.
    pub async fn listen(&self, listener: Listener) -> Result<OwnedFd, OrderError> {
        self.init.conversation.socket(|request| Order::Listen { request, listener }).await
    }

    /// Stops every process of the jail where it is; returns when all have stopped.
    ///
    /// # Errors
    ///
    /// `Unsupported` where there is no cgroup of the unified tree to freeze; `TimedOut` if a process
    /// cannot be stopped: then the jail goes on.
    pub async fn freeze(&self) -> io::Result<()> {
        let place = self.place.as_ref().ok_or(io::ErrorKind::Unsupported)?;
        cgroup::freeze(place)?;
        let mut wait = Duration::from_millis(1);
        let began = Instant::now();
        while !cgroup::is_frozen(place)? {
            // Most are at once, and a timer's tick is a whole millisecond, which all of the jail would wait.
            if began.elapsed() < SOON {
                yield_now().await;
                continue;
            }
            // A process in the middle of something that cannot be interrupted.
            if began.elapsed() > FREEZE {
                cgroup::thaw(place)?;
                return Err(io::ErrorKind::TimedOut.into());
            }
            sleep(wait).await;
            wait = (wait * 2).min(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Lets a frozen jail go on.
    pub fn thaw(&self) -> io::Result<()> {
        cgroup::thaw(self.place.as_ref().ok_or(io::ErrorKind::Unsupported)?)
    }

    /// Paths, from the jail's root, of files that some process of it has mapped so that writing to them
    /// leaves no trace in their times. `None` if that cannot be known.
    pub fn mapped_files(&self) -> Option<HashSet<Vec<u8>>> {
        mapped::files(self.place.as_ref()?.freezer.as_ref()?, self.init.pid)
    }

    /// Bytes on disk of files that have no name any more and are there because the jail has them open or
    /// mapped. Of a jail without a cgroup, nothing is known.
    pub fn nameless_bytes(&self) -> u64 {
        let group = self.place.as_ref().and_then(|place| place.freezer.as_ref());
        group.map_or(0, |group| mapped::nameless_bytes(group, self.init.pid))
    }

    /// Kills everything in the jail, at once.
    pub fn kill(&self) {
        self.init.kill();
    }

    /// Waits until no process of the jail is left. Only after [`Jail::kill`] or the command's end.
    pub async fn gone(&self) {
        if self.alone {
            self.kill();
        }
        // A pidfd becomes readable when its process is a zombie, which init becomes only after all
        // others of its namespace.
        let watched = self.init.process.try_clone().and_then(watched);
        match watched {
            Ok(process) => drop(process.readable().await),
            Err(error) => tracing::error!(jail.pid = self.init.pid, %error, "end not waited for"),
        }
    }
}

/// Completes when a group has used up its CPU time; never without a limit.
async fn cpu_exhausted(counters: &Counters, place: Option<&Place>, limit: Option<Duration>) {
    let (Some(place), Some(limit)) = (place, limit) else { return std::future::pending().await };
    // Sooner than this it cannot happen, on as many processors as there are.
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let processors = u32::try_from(processors).unwrap_or(u32::MAX);
    loop {
        let used = Duration::from_micros(counters.cpu_usage_usec(place));
        let Some(left) = limit.checked_sub(used).filter(|left| !left.is_zero()) else { return };
        sleep((left / processors).max(Duration::from_millis(2))).await;
    }
}

impl Drop for Jail {
    fn drop(&mut self) {
        // Otherwise it ends with the last reference to it, which is ours.
        if self.alone {
            self.lingering.add(Arc::clone(&self.init));
        }
    }
}
