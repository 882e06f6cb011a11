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

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use launch::cgroup::{Place, Statistics, statistics};
use launch::message::{Exit, Order, Report};
use rustix::process::{Signal, pidfd_send_signal};
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe;
use tokio::time::timeout_at;

use crate::link::{self, watched};

/// A jail and the ends of its streams.
#[derive(Debug)]
pub struct Running {
    pub jail: Jail,
    /// Present if it was asked for. Dropping it ends the command's input.
    pub stdin: Option<pipe::Sender>,
    pub stdout: pipe::Receiver,
    pub stderr: pipe::Receiver,
    /// The sockets bound inside, in the order asked.
    pub listeners: Vec<OwnedFd>,
    /// Protections and limits in force, by name.
    pub enforced: Vec<String>,
}

/// A running jail. No process in it outlives this value.
#[derive(Debug)]
#[must_use = "dropping a jail kills all that runs in it"]
pub struct Jail {
    pid: u32,
    /// Killing it kills every process of its PID namespace; there is no other way out of that.
    init: AsyncFd<OwnedFd>,
    place: Option<Place>,
    report: AsyncFd<OwnedFd>,
    began: Instant,
    /// The errno of an `exec` that failed.
    pub(crate) not_executed: Option<i32>,
}

/// How a command ended, and what it used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    pub exit: Exit,
    pub timed_out: bool,
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

impl Jail {
    pub(crate) fn new(
        pid: u32,
        init: OwnedFd,
        place: Option<Place>,
        report: AsyncFd<OwnedFd>,
        began: Instant,
    ) -> io::Result<Self> {
        let init = watched(init)?;
        Ok(Self { pid, init, place, report, began, not_executed: None })
    }

    /// Process id of the jail's init, on the host.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// What the jail used so far; zeroes where there is no cgroup.
    pub fn statistics(&self) -> Statistics {
        self.place.as_ref().map(statistics).unwrap_or_default()
    }

    /// Whether there is a cgroup to count in.
    pub fn is_counted(&self) -> bool {
        self.place.is_some()
    }

    /// The errno of an `exec` that failed: the command never ran, and exits with 126 or 127.
    pub fn not_executed(&self) -> Option<i32> {
        self.not_executed
    }

    /// Waits for the command's end, for at most `limit` from the jail's start. Whatever else still
    /// runs in the jail is killed then.
    ///
    /// # Cancel safety
    ///
    /// May be dropped and called again; an end that was seen is not lost, since it is only reported
    /// by the future that completes.
    pub async fn wait(&mut self, limit: Duration) -> Outcome {
        let deadline = tokio::time::Instant::from_std(self.began + limit);
        let exit = timeout_at(deadline, self.exit()).await;
        let statistics = self.place.as_ref().map(statistics);
        let oom_killed = statistics.is_some_and(|statistics| statistics.oom_kills > 0);
        self.kill();
        Outcome {
            timed_out: exit.is_err(),
            exit: exit.unwrap_or(Exit::Signal(Signal::KILL.as_raw())),
            oom_killed,
            duration: self.began.elapsed(),
            statistics,
            not_executed: self.not_executed,
        }
    }

    /// Sends a signal to the command and its process group.
    pub async fn signal(&self, number: i32) -> io::Result<()> {
        link::send(&self.report, &Order::Signal(number), &[]).await
    }

    /// Kills everything in the jail, at once.
    pub fn kill(&self) {
        match pidfd_send_signal(self.init.get_ref(), Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => tracing::error!(jail.pid = self.pid, %error, "jail not killed"),
        }
    }

    /// Waits until no process of the jail is left. Only after [`Jail::kill`] or the command's end.
    pub async fn gone(&self) {
        // A pidfd becomes readable when its process is a zombie, which init becomes only after all
        // others of its namespace.
        drop(self.init.readable().await);
    }

    pub(crate) fn report(&self) -> &AsyncFd<OwnedFd> {
        &self.report
    }

    async fn exit(&mut self) -> Exit {
        loop {
            match link::receive::<Report>(&self.report).await {
                Ok(Some((Report::Exited(exit), _))) => return exit,
                Ok(Some((Report::Ready { .. } | Report::Failed(_), _))) => {}
                // Init itself was killed: by the kernel, for memory, or from outside.
                Ok(None) | Err(_) => return Exit::Signal(Signal::KILL.as_raw()),
            }
        }
    }
}

impl Drop for Jail {
    fn drop(&mut self) {
        self.kill();
    }
}
