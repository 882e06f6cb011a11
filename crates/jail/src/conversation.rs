//! Talking to one jail's init: orders out, reports to who waits for them.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use launch::message::{Exit, FIRST, Fault, Order, Process, Report};
use rustix::process::Signal;
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::link;

/// How long init may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a further command begins with: the errno of an `exec` that failed, and its terminal.
pub(crate) type Started = Result<(Option<i32>, Option<OwnedFd>), Fault>;

/// The talk with one init. Dropping it ends the talk, and with it the jail.
#[derive(Debug)]
pub(crate) struct Conversation {
    socket: Arc<AsyncFd<OwnedFd>>,
    waiting: Arc<Mutex<Waiting>>,
    next: AtomicU32,
    /// Started with the first order. Until then there is nothing to hear but the first command's end, and
    /// who waits for that listens.
    reader: OnceLock<JoinSet<()>>,
}

/// Who waits for what.
#[derive(Debug, Default)]
struct Waiting {
    starts: HashMap<Process, oneshot::Sender<Started>>,
    ends: HashMap<Process, oneshot::Sender<Exit>>,
    sockets: HashMap<u32, oneshot::Sender<Result<OwnedFd, Fault>>>,
    gone: bool,
}

impl Waiting {
    /// An init that does not answer must not make this grow.
    fn forget_who_left(&mut self) {
        self.starts.retain(|_, start| !start.is_closed());
        self.ends.retain(|_, end| !end.is_closed());
        self.sockets.retain(|_, socket| !socket.is_closed());
    }
}

/// Why init did not do as it was told.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    /// The jail is being killed, or has ended.
    #[error("the jail has gone")]
    Gone,
    /// Frozen, or starved.
    #[error("the jail did not answer in {} s", PATIENCE.as_secs())]
    Slow,
    #[error("could not speak to the jail")]
    Speak(#[source] io::Error),
    #[error("the jail could not: {0}")]
    Refused(#[source] Fault),
}

impl Conversation {
    /// Goes on with a talk after its first report; gives also the end of the first command.
    pub(crate) fn new(socket: AsyncFd<OwnedFd>) -> (Self, oneshot::Receiver<Exit>) {
        let socket = Arc::new(socket);
        let (end, first) = oneshot::channel();
        let mut waiting = Waiting::default();
        waiting.ends.insert(FIRST, end);
        let waiting = Arc::new(Mutex::new(waiting));
        let (next, reader) = (AtomicU32::new(FIRST + 1), OnceLock::new());
        (Self { socket, waiting, next, reader }, first)
    }

    /// Waits for the first command's end; `None` if init has gone without a word of it.
    ///
    /// # Cancel safety
    ///
    /// May be dropped and called again.
    pub(crate) async fn end_of_first(&self, first: &mut oneshot::Receiver<Exit>) -> Option<Exit> {
        while self.reader.get().is_none() {
            let more = hear(&self.socket, &self.waiting).await;
            match first.try_recv() {
                Ok(exit) => return Some(exit),
                Err(oneshot::error::TryRecvError::Empty) if more => {}
                Err(_) => return None,
            }
        }
        first.await.ok()
    }

    /// A number that was not used yet.
    pub(crate) fn number(&self) -> u32 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Sends an order that is not answered.
    pub(crate) async fn tell(&self, order: &Order) -> Result<(), OrderError> {
        self.send(order, &[]).await
    }

    /// Starts a command; gives also its end, which may come before the start is known.
    pub(crate) async fn start(
        &self,
        further: launch::message::Further,
        streams: &[OwnedFd],
    ) -> Result<(Option<i32>, Option<OwnedFd>, oneshot::Receiver<Exit>), OrderError> {
        let process = further.process;
        let (start, started) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        {
            let mut waiting = lock(&self.waiting);
            if waiting.gone {
                return Err(OrderError::Gone);
            }
            waiting.forget_who_left();
            waiting.starts.insert(process, start);
            waiting.ends.insert(process, end);
        }
        if let Err(error) = self.send(&Order::Start(Box::new(further)), streams).await {
            let mut waiting = lock(&self.waiting);
            waiting.starts.remove(&process);
            waiting.ends.remove(&process);
            return Err(error);
        }
        let (not_executed, terminal) = answer(started).await?.map_err(OrderError::Refused)?;
        Ok((not_executed, terminal, ended))
    }

    /// Asks for a socket of the jail's network.
    pub(crate) async fn socket(
        &self,
        order: impl FnOnce(u32) -> Order,
    ) -> Result<OwnedFd, OrderError> {
        let request = self.number();
        let (answer, answered) = oneshot::channel();
        {
            let mut waiting = lock(&self.waiting);
            if waiting.gone {
                return Err(OrderError::Gone);
            }
            waiting.forget_who_left();
            waiting.sockets.insert(request, answer);
        }
        if let Err(error) = self.send(&order(request), &[]).await {
            lock(&self.waiting).sockets.remove(&request);
            return Err(error);
        }
        self::answer(answered).await?.map_err(OrderError::Refused)
    }

    async fn send(&self, order: &Order, descriptors: &[OwnedFd]) -> Result<(), OrderError> {
        use std::os::fd::AsFd as _;
        self.reader.get_or_init(|| {
            let mut reader = JoinSet::new();
            reader.spawn(listen(Arc::clone(&self.socket), Arc::clone(&self.waiting)));
            reader
        });
        let lent: Vec<_> = descriptors.iter().map(|fd| fd.as_fd()).collect();
        link::send(&self.socket, order, &lent).await.map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => OrderError::Gone,
            _ => OrderError::Speak(error),
        })
    }
}

/// Waits for init, which shares the jail's processor with whatever runs there.
async fn answer<T>(answered: oneshot::Receiver<T>) -> Result<T, OrderError> {
    match timeout(PATIENCE, answered).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(_)) => Err(OrderError::Gone),
        Err(_) => Err(OrderError::Slow),
    }
}

/// Hands each report to who waits for it, until init goes.
async fn listen(socket: Arc<AsyncFd<OwnedFd>>, waiting: Arc<Mutex<Waiting>>) {
    while hear(&socket, &waiting).await {}
}

/// Hands the next report to who waits for it; gives whether there may be more.
async fn hear(socket: &AsyncFd<OwnedFd>, waiting: &Mutex<Waiting>) -> bool {
    if let Ok(Some((report, mut descriptors))) = link::receive::<Report>(socket).await {
        let mut waiting = lock(waiting);
        match report {
            Report::Exited { process, exit } => tell(waiting.ends.remove(&process), exit),
            Report::Started { process, not_executed } => {
                tell(waiting.starts.remove(&process), Ok((not_executed, descriptors.pop())));
            }
            Report::NotStarted { process, fault } => {
                waiting.ends.remove(&process);
                tell(waiting.starts.remove(&process), Err(fault));
            }
            Report::Socket { request, refused } => {
                let socket = match (refused, descriptors.pop()) {
                    (None, Some(socket)) => Ok(socket),
                    (Some(fault), _) => Err(fault),
                    (None, None) => Err(link::out_of_descriptors()),
                };
                tell(waiting.sockets.remove(&request), socket);
            }
            Report::Ready { .. } | Report::Failed(_) => {}
        }
        return true;
    }
    // Init itself was killed: by the kernel, for memory, or from outside. All it had is, too.
    let mut waiting = lock(waiting);
    waiting.gone = true;
    waiting.starts.clear();
    waiting.sockets.clear();
    for (_, end) in waiting.ends.drain() {
        tell(Some(end), Exit::Signal(Signal::KILL.as_raw()));
    }
    false
}

/// Who has gone away needs no answer.
fn tell<T>(to: Option<oneshot::Sender<T>>, what: T) {
    if let Some(to) = to {
        drop(to.send(what));
    }
}

fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}
