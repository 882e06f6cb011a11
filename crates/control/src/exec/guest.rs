//! A command in a jail that runs already: beside the sandbox agent that lives in it.
//!
//! It has no limits of its own but its time, and no network of its own; it ends, with all that it began, when its
//! caller goes, when its time is up, and with the jail.

use std::time::Duration;

use ids::{SessionId, TenantId};
use jail::{Command, Exit, Outcome, Process, Stdin, Streams, WORKSPACE};
use jiff::Timestamp;
use serde_json::json;
use store::{JailEnd, JailKind, NewJail};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout};

use super::ask::Asker;
use super::capture::Head;
use super::error::ExecError;
use super::held::Held;
use super::live::LiveRows;
use super::owner::{Cut, Event, Input, Reason, Sink, Stream, apart, feed, read, result, row};
use super::result::ExecResult;
use super::service::{EVENT_QUEUE, Executor};

/// How long output may still come once the command and what it began are killed.
const DRAIN: Duration = Duration::from_secs(5);

/// Who lives in a jail that takes guests.
#[derive(Debug, Clone)]
pub(crate) struct Resident {
    /// Its row in the ledger.
    pub(crate) jail: i64,
    pub(crate) pid: u32,
    pub(crate) session: Option<SessionId>,
    pub(crate) enforced: Vec<String>,
    /// The search path in there.
    pub(crate) path: String,
}

/// A command to run beside a resident.
#[derive(Debug)]
pub(crate) struct Guest {
    pub(crate) tenant: TenantId,
    pub(crate) label: String,
    pub(crate) resident: Resident,
    pub(crate) asker: Asker,
    pub(crate) program: String,
    pub(crate) arguments: Vec<String>,
    /// The last word on a name counts.
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) session: Option<SessionId>,
    pub(crate) stdin: Option<Input>,
    pub(crate) timeout: Duration,
    pub(crate) held: Held,
}

/// A guest that runs.
#[derive(Debug)]
struct Running {
    id: i64,
    process: Process,
    resident: Resident,
    stdin: Option<Input>,
    timeout: Duration,
    held: Held,
    began: Instant,
}

impl Executor {
    /// Runs a guest to its end. When the caller goes away it is killed.
    pub(crate) async fn run_guest(&self, guest: Guest) -> Result<ExecResult, ExecError> {
        let (result, wait) = oneshot::channel();
        self.begin_guest(guest, Sink::Result(result)).await?;
        wait.await.map_err(|_| ExecError::Stopped)
    }

    /// Runs a guest and gives what happens as it happens. Dropping the receiver ends it.
    pub(crate) async fn stream_guest(
        &self,
        guest: Guest,
        cut: Cut,
    ) -> Result<mpsc::Receiver<Event>, ExecError> {
        let (events, receiver) = mpsc::channel(EVENT_QUEUE);
        self.begin_guest(guest, Sink::Events(events, cut)).await?;
        Ok(receiver)
    }

    async fn begin_guest(&self, guest: Guest, sink: Sink) -> Result<(), ExecError> {
        let this = self.clone();
        let (begun, wait) = oneshot::channel();
        // As of a job: it happens to its end, whoever hangs up.
        self.tasks().spawn(async move {
            match this.start_guest(guest).await {
                Ok(running) => {
                    drop(begun.send(Ok(())));
                    this.see_through(running, sink).await;
                }
                Err(error) => drop(begun.send(Err(error))),
            }
        });
        wait.await.map_err(|_| ExecError::Stopped)?
    }

    async fn start_guest(&self, guest: Guest) -> Result<Running, ExecError> {
        let began = Instant::now();
        let id = self.store().insert_jail(&new_row(&guest)).await?;
        self.live().insert(id, None);
        let mut environment = vec![
            ("PATH".to_owned(), guest.resident.path.clone()),
            ("HOME".to_owned(), "/home/agent".to_owned()),
            ("LANG".to_owned(), "C.UTF-8".to_owned()),
        ];
        for (name, value) in guest.environment {
            environment.retain(|(known, _)| *known != name);
            environment.push((name, value));
        }
        let command = Command {
            program: guest.program,
            arguments: guest.arguments,
            environment,
            directory: WORKSPACE.to_owned(),
        };
        let stdin = if guest.stdin.is_some() { Stdin::Piped } else { Stdin::Empty };
        match guest.asker.start(command, stdin).await {
            Ok(process) => Ok(Running {
                id,
                process,
                resident: guest.resident,
                stdin: guest.stdin,
                timeout: guest.timeout,
                held: guest.held,
                began,
            }),
            Err(error) => {
                self.live().remove(id);
                let error = ExecError::from(error);
                self.close_unstarted(id, &error).await;
                Err(error)
            }
        }
    }

    async fn see_through(&self, running: Running, mut sink: Sink) {
        let Running { id, mut process, resident, stdin, timeout: limit, held, began } = running;
        sink.send(Event::Started { pid: resident.pid }).await;
        let live: LiveRows = self.live().clone();
        let output_limit = self.config().output_limit_bytes;
        let (mut out, mut err) = (Head::new(output_limit), Head::new(output_limit));
        let pipes = match process.streams.take() {
            Some(Streams::Pipes(pipes)) => Some(pipes),
            Some(Streams::Terminal(_)) | None => None,
        };
        let (input, stdout, stderr) = apart(pipes);
        let feed = feed(input.zip(stdin));
        let left = read(stdout, Stream::Stdout, id, &live, sink.events(), &mut out);
        let right = read(stderr, Stream::Stderr, id, &live, sink.events(), &mut err);
        let mut output = Box::pin(async {
            let read = async { tokio::join!(left, right) };
            let (mut read, mut feed) = (std::pin::pin!(read), std::pin::pin!(feed));
            tokio::select! {
                _ = read.as_mut() => {}
                () = feed.as_mut() => drop(read.await),
            }
        });
        let mut output_ended = false;
        let (exit, reason, timed_out) = {
            let mut end = std::pin::pin!(self.end_of(&mut process, limit, &mut sink));
            tokio::select! {
                () = output.as_mut() => {
                    output_ended = true;
                    end.await
                }
                ended = end.as_mut() => ended,
            }
        };
        // What it began has ended with it, as it does where a command has a jail of its own.
        if !output_ended {
            drop(timeout(DRAIN, output.as_mut()).await);
        }
        drop(output);
        let outcome = Outcome {
            exit,
            timed_out,
            cpu_exhausted: false,
            oom_killed: false,
            duration: began.elapsed(),
            statistics: None,
            not_executed: process.not_executed,
        };
        let last = live.remove(id);
        let end = row(&outcome, &resident.enforced, &last, &reason, None);
        drop(held);
        self.close_row(id, &end).await;
        if reason == Reason::ServerStops {
            sink.fail("the server stopped").await;
        } else {
            sink.complete(result(&outcome, out, err, resident.enforced, None)).await;
        }
    }

    /// How it ended, why, and whether its time was up.
    async fn end_of(
        &self,
        process: &mut Process,
        limit: Duration,
        sink: &mut Sink,
    ) -> (Exit, Reason, bool) {
        let (reason, timed_out) = tokio::select! {
            exit = process.wait() => return (exit, Reason::ByItself, false),
            () = sleep(limit) => (Reason::ByItself, true),
            () = sink.gone() => (Reason::ClientGone, false),
            () = self.stopping() => (Reason::ServerStops, false),
        };
        drop(process.kill().await);
        // A jail that stands still, or has gone, answers no more.
        let exit = timeout(DRAIN, process.wait()).await;
        (exit.unwrap_or(Exit::Signal(9)), reason, timed_out)
    }

    async fn close_row(&self, id: i64, end: &JailEnd) {
        if let Err(error) = self.store().end_jail(id, Timestamp::now(), end).await {
            tracing::error!(
                jail.id = id,
                error = &error as &dyn std::error::Error,
                "row not closed"
            );
        }
    }
}

fn new_row(guest: &Guest) -> NewJail {
    NewJail {
        tenant: guest.tenant.clone(),
        kind: JailKind::Workspace,
        started_at: Timestamp::now(),
        session: guest.session.clone(),
        label: guest.label.clone(),
        parent: Some(guest.resident.jail),
        config: json!({ "joined": guest.resident.jail, "timeout_secs": guest.timeout.as_secs() }),
    }
}
