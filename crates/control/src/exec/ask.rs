//! What others may ask of the owner of a running job.

use std::collections::HashSet;
use std::io;
use std::time::{Duration, Instant};

use jail::{Command, Jail, OrderError, Process, Stdin, Stdio};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::network::{Served, SteerError};

/// How long a jail may take to do what was asked. Its deadline waits meanwhile.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a jail stands still at most, whoever forgot to let it go on.
const LONGEST_FREEZE: Duration = Duration::from_secs(60);

/// Requests that may wait.
const QUEUE: usize = 8;

/// Something asked of an owner.
#[derive(Debug)]
pub(crate) enum Ask {
    /// Put another policy in force; gives how many connections it cut.
    Steer(egress::Policy, oneshot::Sender<Result<usize, AskError>>),
    /// Start one more command beside the first.
    Start(Box<Command>, Stdin, oneshot::Sender<Result<Process, AskError>>),
    /// Stop everything until something that needs it to run is asked for.
    Pause(oneshot::Sender<Result<(), AskError>>),
    /// Let it go on.
    Resume(oneshot::Sender<Result<(), AskError>>),
    /// Stop everything until what is given is dropped.
    Freeze(oneshot::Sender<Result<Frozen, AskError>>),
    /// Tell which files somebody may change without a trace; `None` if that cannot be known.
    Mapped(oneshot::Sender<Result<Option<HashSet<Vec<u8>>>, AskError>>),
    /// Connect to a port inside.
    Connect(u16, oneshot::Sender<Result<TcpStream, AskError>>),
    /// End it.
    Kill,
}

/// Why an owner did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    #[error("the jail has ended")]
    Ended,
    #[error(transparent)]
    Steer(#[from] SteerError),
    #[error("the jail could not be frozen")]
    Freeze(#[source] io::Error),
    #[error(
        "it wrote more than could be copied in {} s of standing still: take the snapshot when it writes less",
        LONGEST_FREEZE.as_secs()
    )]
    Thawed,
    #[error("nothing answers on that port of the jail")]
    Connect(#[source] OrderError),
    #[error("the command could not be started in the jail that runs")]
    Start(#[source] OrderError),
    #[error("the jail did not answer in time")]
    Slow,
}

/// Through which an owner is asked. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Asker(mpsc::Sender<Ask>);

/// A jail that stands still. Dropping it lets it go on.
#[derive(Debug)]
pub(crate) struct Frozen {
    since: Instant,
    /// Files of the jail that somebody may change without a trace; `None` if that cannot be known.
    pub(crate) mapped: Option<HashSet<Vec<u8>>>,
    thaw: oneshot::Sender<()>,
}

impl Frozen {
    /// Lets the jail go on; gives how long it stood still. An error if it did not, to the end.
    pub(crate) fn thaw(self) -> Result<Duration, AskError> {
        self.thaw.send(()).map_err(|()| AskError::Thawed)?;
        Ok(self.since.elapsed())
    }
}

impl Asker {
    pub(crate) fn new() -> (Self, mpsc::Receiver<Ask>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        (Self(sender), receiver)
    }

    pub(crate) async fn steer(&self, policy: egress::Policy) -> Result<usize, AskError> {
        self.ask(|told| Ask::Steer(policy, told)).await
    }

    pub(crate) async fn freeze(&self) -> Result<Frozen, AskError> {
        self.ask(Ask::Freeze).await
    }

    pub(crate) async fn mapped(&self) -> Result<Option<HashSet<Vec<u8>>>, AskError> {
        self.ask(Ask::Mapped).await
    }

    pub(crate) async fn connect(&self, port: u16) -> Result<TcpStream, AskError> {
        self.ask(|told| Ask::Connect(port, told)).await
    }

    /// Starts a command beside the first. It ends with the jail.
    pub(crate) async fn start(&self, command: Command, stdin: Stdin) -> Result<Process, AskError> {
        self.ask(|told| Ask::Start(Box::new(command), stdin, told)).await
    }

    /// Stops the jail until [`Asker::resume`], or until something is asked that needs it to run.
    pub(crate) async fn pause(&self) -> Result<(), AskError> {
        self.ask(Ask::Pause).await
    }

    pub(crate) async fn resume(&self) -> Result<(), AskError> {
        self.ask(Ask::Resume).await
    }

    /// Whether the job has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.0.is_closed()
    }

    /// Waits until the job has ended, and nothing of its jail is left.
    pub(crate) async fn ended(&self) {
        self.0.closed().await;
    }

    /// Ends the job. It may take a moment; nothing is lost if it has ended by itself.
    pub(crate) async fn kill(&self) {
        drop(self.0.send(Ask::Kill).await);
    }

    async fn ask<T>(
        &self,
        ask: impl FnOnce(oneshot::Sender<Result<T, AskError>>) -> Ask,
    ) -> Result<T, AskError> {
        let (told, hear) = oneshot::channel();
        self.0.send(ask(told)).await.map_err(|_| AskError::Ended)?;
        hear.await.map_err(|_| AskError::Ended)?
    }
}

/// Does what was asked. Whoever asked may have gone; it is done all the same. `paused` says whether the jail stands
/// still from one ask to the next.
pub(super) async fn answer(ask: Ask, jail: &Jail, served: &mut Served, paused: &mut bool) {
    if *paused && !matches!(ask, Ask::Freeze(_) | Ask::Mapped(_) | Ask::Pause(_) | Ask::Kill) {
        go_on(jail);
        *paused = false;
    }
    match ask {
        Ask::Start(command, stdin, told) => {
            let stdio = Stdio::Pipes { stdin };
            let started = timeout(PATIENCE, jail.start_whole(*command, stdio)).await;
            let started = started.map(|started| started.map_err(AskError::Start));
            drop(told.send(started.unwrap_or(Err(AskError::Slow))));
        }
        Ask::Pause(told) => {
            let stopped = if *paused { Ok(()) } else { jail.freeze().await };
            *paused = stopped.is_ok();
            drop(told.send(stopped.map_err(AskError::Freeze)));
        }
        Ask::Resume(told) => drop(told.send(Ok(()))),
        Ask::Steer(policy, told) => {
            let steered = timeout(PATIENCE, served.steer(jail, policy)).await;
            let steered = steered.unwrap_or(Err(SteerError::Slow));
            drop(told.send(steered.map_err(AskError::Steer)));
        }
        Ask::Connect(port, told) => {
            let connected = timeout(PATIENCE, jail.connect(port)).await;
            let connected = connected.map(|stream| stream.map_err(AskError::Connect));
            drop(told.send(connected.unwrap_or(Err(AskError::Slow))));
        }
        Ask::Freeze(told) => freeze(told, jail, *paused).await,
        Ask::Mapped(told) => drop(told.send(Ok(jail.mapped_files()))),
        // Seen to by the owner itself.
        Ask::Kill => jail.kill(),
    }
}

async fn freeze(told: oneshot::Sender<Result<Frozen, AskError>>, jail: &Jail, paused: bool) {
    let since = Instant::now();
    if !paused && let Err(error) = jail.freeze().await {
        drop(told.send(Err(AskError::Freeze(error))));
        return;
    }
    let (thaw, thawed) = oneshot::channel();
    let frozen = Frozen { since, mapped: jail.mapped_files(), thaw };
    // If nobody hears, the sender is dropped, and the jail goes on at once.
    if told.send(Ok(frozen)).is_ok() {
        drop(timeout(LONGEST_FREEZE, thawed).await);
    }
    if !paused {
        go_on(jail);
    }
}

fn go_on(jail: &Jail) {
    if let Err(error) = jail.thaw() {
        tracing::error!(%error, "a jail could not be thawed; killing it");
        jail.kill();
    }
}
