//! What others may ask of the owner of a running job.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use jail::{Command, Connector, Jail, OrderError, Process, Stdin, Stdio};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::network::{Served, SteerError};

/// How long a jail may take to do what was asked. Its deadline waits meanwhile.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a jail stands still at most, whoever forgot to let it go on.
const LONGEST_FREEZE: Duration = Duration::from_secs(60);

/// Requests that may wait.
const QUEUE: usize = 8;

/// Connections that may be under way.
const CONNECTING: usize = 64;

/// Something asked of an owner.
#[derive(Debug)]
pub(crate) enum Ask {
    /// Put another policy in force; gives how many connections it cut.
    Steer(egress::Policy, oneshot::Sender<Result<usize, AskError>>),
    /// Start one more command beside the first.
    Start(Box<Command>, Stdin, oneshot::Sender<Result<Process, AskError>>),
    /// Let it go on, if it is paused.
    Resume(oneshot::Sender<Result<(), AskError>>),
    /// Stop everything until what is given is dropped.
    Freeze(oneshot::Sender<Result<Frozen, AskError>>),
    /// Tell which files somebody may change without a trace; `None` if that cannot be known.
    Mapped(oneshot::Sender<Result<Option<HashSet<Vec<u8>>>, AskError>>),
    /// Connect to a port inside.
    Connect(u16, oneshot::Sender<Result<TcpStream, AskError>>),
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
pub(crate) struct Asker {
    asks: mpsc::Sender<Ask>,
    /// Beside the queue: an end waits for nothing.
    kill: CancellationToken,
    still: Arc<AtomicBool>,
}

/// What an owner hears.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(super) asks: mpsc::Receiver<Ask>,
    pub(super) kill: CancellationToken,
    /// Whether the jail stands still from one ask to the next.
    pub(super) still: Arc<AtomicBool>,
    connecting: JoinSet<()>,
}

/// A jail that stands still. Dropping it lets it go on.
#[derive(Debug)]
pub(crate) struct Frozen {
    since: Instant,
    /// Files of the jail that somebody may change without a trace; `None` if that cannot be known.
    pub(crate) mapped: Option<HashSet<Vec<u8>>>,
    thaw: oneshot::Sender<Then>,
}

/// What a jail does that stood still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    GoOn,
    /// It is paused.
    StayStill,
}

impl Frozen {
    /// Lets the jail go on, or not; gives how long it stood still. An error if it did not, to the end.
    pub(crate) fn end(self, then: Then) -> Result<Duration, AskError> {
        self.thaw.send(then).map_err(|_| AskError::Thawed)?;
        Ok(self.since.elapsed())
    }
}

impl Asker {
    pub(crate) fn new() -> (Self, Asked) {
        let (asker, asks) = mpsc::channel(QUEUE);
        let (kill, still) = (CancellationToken::new(), Arc::new(AtomicBool::new(false)));
        let asked =
            Asked { asks, kill: kill.clone(), still: still.clone(), connecting: JoinSet::new() };
        (Self { asks: asker, kill, still }, asked)
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

    pub(crate) async fn resume(&self) -> Result<(), AskError> {
        self.ask(Ask::Resume).await
    }

    /// Whether it is paused.
    pub(crate) fn stands_still(&self) -> bool {
        self.still.load(Ordering::Acquire)
    }

    /// Whether the job has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.asks.is_closed()
    }

    /// Waits until the job has ended, and nothing of its jail is left.
    pub(crate) async fn ended(&self) {
        self.asks.closed().await;
    }

    /// Ends the job. It may take a moment; nothing is lost if it has ended by itself.
    pub(crate) fn kill(&self) {
        self.kill.cancel();
    }

    async fn ask<T>(
        &self,
        ask: impl FnOnce(oneshot::Sender<Result<T, AskError>>) -> Ask,
    ) -> Result<T, AskError> {
        let (told, hear) = oneshot::channel();
        self.asks.send(ask(told)).await.map_err(|_| AskError::Ended)?;
        hear.await.map_err(|_| AskError::Ended)?
    }
}

impl Asked {
    /// Does what was asked. Whoever asked may have gone; it is done all the same.
    pub(super) async fn answer(&mut self, ask: Ask, jail: &Jail, served: &mut Served) {
        if !matches!(ask, Ask::Freeze(_) | Ask::Mapped(_)) {
            self.go_on(jail);
        }
        let still = self.still.load(Ordering::Acquire);
        match ask {
            Ask::Start(command, stdin, told) => {
                let stdio = Stdio::Pipes { stdin };
                let started = timeout(PATIENCE, jail.start_whole(*command, stdio)).await;
                let started = started.map(|started| started.map_err(AskError::Start));
                drop(told.send(started.unwrap_or(Err(AskError::Slow))));
            }
            Ask::Resume(told) => drop(told.send(Ok(()))),
            Ask::Steer(policy, told) => {
                let steered = timeout(PATIENCE, served.steer(jail, policy)).await;
                let steered = steered.unwrap_or(Err(SteerError::Slow));
                drop(told.send(steered.map_err(AskError::Steer)));
            }
            Ask::Connect(port, told) => self.connect(port, told, jail.connector()),
            Ask::Freeze(told) => {
                let stays = freeze(told, jail, still).await == Then::StayStill;
                self.still.fetch_or(stays, Ordering::AcqRel);
            }
            Ask::Mapped(told) => drop(told.send(Ok(jail.mapped_files()))),
        }
    }

    /// Beside everything else: who listens in there may never take a connection.
    fn connect(
        &mut self,
        port: u16,
        told: oneshot::Sender<Result<TcpStream, AskError>>,
        connector: Connector,
    ) {
        while self.connecting.try_join_next().is_some() {}
        if self.connecting.len() >= CONNECTING {
            drop(told.send(Err(AskError::Slow)));
            return;
        }
        self.connecting.spawn(async move {
            let connected = timeout(PATIENCE, connector.connect(port)).await;
            let connected = connected.map(|stream| stream.map_err(AskError::Connect));
            drop(told.send(connected.unwrap_or(Err(AskError::Slow))));
        });
    }

    /// Lets a paused jail go on.
    pub(super) fn go_on(&self, jail: &Jail) {
        if self.still.swap(false, Ordering::AcqRel) {
            go_on(jail);
        }
    }
}

async fn freeze(
    told: oneshot::Sender<Result<Frozen, AskError>>,
    jail: &Jail,
    paused: bool,
) -> Then {
    let since = Instant::now();
    if !paused && let Err(error) = jail.freeze().await {
        drop(told.send(Err(AskError::Freeze(error))));
        return Then::GoOn;
    }
    let (thaw, thawed) = oneshot::channel();
    let frozen = Frozen { since, mapped: jail.mapped_files(), thaw };
    // If nobody hears, the sender is dropped, and the jail goes on at once.
    let then = match told.send(Ok(frozen)) {
        Ok(()) => timeout(LONGEST_FREEZE, thawed).await.ok().and_then(Result::ok),
        Err(_) => None,
    };
    let then = then.unwrap_or(Then::GoOn);
    if !paused && then == Then::GoOn {
        go_on(jail);
    }
    then
}

fn go_on(jail: &Jail) {
    if let Err(error) = jail.thaw() {
        tracing::error!(%error, "a jail could not be thawed; killing it");
        jail.kill();
    }
}
