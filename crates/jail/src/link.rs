//! The connection to one launcher: requests out, replies back to who asked.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use launch::message::{Fault, Offers, Preparation, Reply, Request, Spec};
use launch::wire::{self, Packet};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

/// Why a jail that was asked for will never be ready.
#[derive(Debug)]
pub(crate) enum Refusal {
    Refused(Fault),
    Died { oom: bool },
}

/// A live launcher. Dropping it ends the launcher, and with it every jail.
#[derive(Debug)]
pub(crate) struct Link {
    socket: Arc<AsyncFd<OwnedFd>>,
    waiting: Arc<Mutex<Waiting>>,
    pub(crate) offers: Offers,
    process: Mutex<Option<Child>>,
    _replies: JoinSet<()>,
}

/// Who waits for what; `None` once the launcher has gone.
type Waiting = Option<Askers>;

#[derive(Debug, Default)]
struct Askers {
    jails: HashMap<u64, oneshot::Sender<Refusal>>,
    counts: HashMap<u64, oneshot::Sender<usize>>,
    next_count: u64,
}

/// Why a launcher could not be had, or did not answer.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error("could not start the launcher")]
    Start(#[source] io::Error),
    #[error("this machine cannot make jails: {0}")]
    Unfit(#[source] Fault),
    #[error("the launcher ended before it was ready")]
    EndedEarly,
    #[error("could not speak to the launcher")]
    Speak(#[source] io::Error),
    #[error("the launcher has gone")]
    Gone,
}

impl Link {
    /// Starts a launcher and waits until it is ready.
    pub(crate) async fn start(
        program: &OwnedFd,
        preparation: Preparation,
    ) -> Result<Self, LinkError> {
        let (ours, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )
        .map_err(|error| LinkError::Start(error.into()))?;
        let process = start_process(program, theirs).map_err(LinkError::Start)?;
        let socket = watched(ours).map_err(LinkError::Start)?;
        send(&socket, &Request::Prepare(preparation), &[]).await.map_err(LinkError::Speak)?;
        let offers = match receive::<Reply>(&socket).await.map_err(LinkError::Speak)? {
            Some((Reply::Prepared(offers), _)) => offers,
            Some((Reply::Unfit(fault), _)) => return Err(LinkError::Unfit(fault)),
            Some(_) | None => return Err(LinkError::EndedEarly),
        };
        let socket = Arc::new(socket);
        let waiting = Arc::new(Mutex::new(Some(Askers::default())));
        let mut replies = JoinSet::new();
        replies.spawn(deliver(Arc::clone(&socket), Arc::clone(&waiting)));
        let process = Mutex::new(Some(process));
        Ok(Self { socket, waiting, offers, process, _replies: replies })
    }

    /// Asks for a jail: with a [`Request::Start`] of this number.
    ///
    /// # Cancel safety
    ///
    /// If the caller goes away, a jail that was asked for is born, finds its report socket closed,
    /// and ends.
    pub(crate) async fn ask(
        &self,
        jail: u64,
        start: &Request,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<Asked<'_>, LinkError> {
        let (answer, refused) = oneshot::channel();
        lock(&self.waiting).as_mut().ok_or(LinkError::Gone)?.jails.insert(jail, answer);
        let asked = Asked { link: self, jail, refused };
        send(&self.socket, start, descriptors).await.map_err(LinkError::Speak)?;
        Ok(asked)
    }

    /// Asks for blank jails. There is no answer.
    pub(crate) async fn warm(&self, spec: Spec) -> Result<(), LinkError> {
        send(&self.socket, &Request::Warm(Box::new(spec)), &[]).await.map_err(LinkError::Speak)
    }

    /// Asks how many blanks there are.
    pub(crate) async fn blanks(&self) -> Result<usize, LinkError> {
        let (answer, answered) = oneshot::channel();
        let request = {
            let mut waiting = lock(&self.waiting);
            let askers = waiting.as_mut().ok_or(LinkError::Gone)?;
            askers.next_count += 1;
            let request = askers.next_count;
            askers.counts.insert(request, answer);
            request
        };
        if let Err(error) = send(&self.socket, &Request::Count(request), &[]).await {
            if let Some(askers) = lock(&self.waiting).as_mut() {
                askers.counts.remove(&request);
            }
            return Err(LinkError::Speak(error));
        }
        answered.await.map_err(|_| LinkError::Gone)
    }

    /// Its socket is closed: nobody asks it any more.
    pub(crate) fn bury(&self) {
        *lock(&self.waiting) = None;
    }

    pub(crate) fn is_alive(&self) -> bool {
        lock(&self.waiting).is_some()
    }

    pub(crate) fn process_id(&self) -> Option<u32> {
        lock(&self.process).as_ref().map(Child::id)
    }

    /// Takes the launcher's process, to wait for it.
    pub(crate) fn take_process(&self) -> Option<Child> {
        lock(&self.process).take()
    }
}

/// A jail that was asked for. Its init says when it is ready; the launcher, why it never will be.
#[derive(Debug)]
pub(crate) struct Asked<'link> {
    link: &'link Link,
    jail: u64,
    refused: oneshot::Receiver<Refusal>,
}

impl Asked<'_> {
    /// Waits for a refusal.
    pub(crate) async fn refused(&mut self) -> Result<Refusal, LinkError> {
        (&mut self.refused).await.map_err(|_| LinkError::Gone)
    }

    /// Asks why there is nobody who could say that the jail is ready.
    pub(crate) async fn inquire(mut self) -> Result<Refusal, LinkError> {
        send(&self.link.socket, &Request::Inquire(self.jail), &[])
            .await
            .map_err(LinkError::Speak)?;
        self.refused().await
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        if let Some(waiting) = lock(&self.link.waiting).as_mut() {
            waiting.jails.remove(&self.jail);
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // The launcher sees its socket closed and ends all jails. It is reaped here if it is quick,
        // by whoever is our parent's init if not: an engine that wants to see it end shuts down.
        if let Some(mut process) = self.take_process() {
            drop(process.try_wait());
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "this is where the launcher itself is started")]
fn start_process(program: &OwnedFd, socket: OwnedFd) -> io::Result<Child> {
    use std::os::fd::AsRawFd as _;
    // The launcher's end is blocking: it has nothing else to do.
    rustix::io::ioctl_fionbio(&socket, false)?;
    Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()))
        .arg0(launch::Role::name())
        // No secret of ours is in its environment, and so in none of its children's memory.
        .env_clear()
        .current_dir("/")
        .stdin(socket)
        .stdout(Stdio::null())
        .spawn()
}

/// Hands each reply to who waits for it, until the launcher goes.
async fn deliver(socket: Arc<AsyncFd<OwnedFd>>, waiting: Arc<Mutex<Waiting>>) {
    while let Ok(Some((reply, _))) = receive::<Reply>(&socket).await {
        let (jail, answer) = match reply {
            Reply::Refused { jail, fault } => (jail, Refusal::Refused(fault)),
            Reply::Died { jail, oom } => (jail, Refusal::Died { oom }),
            Reply::Blanks { request, count } => {
                let asker = lock(&waiting).as_mut().and_then(|w| w.counts.remove(&request));
                if let Some(asker) = asker {
                    let _ = asker.send(usize::try_from(count).unwrap_or(usize::MAX));
                }
                continue;
            }
            other => {
                tracing::error!(?other, "the launcher said something unexpected");
                break;
            }
        };
        let asker = lock(&waiting).as_mut().and_then(|waiting| waiting.jails.remove(&jail));
        if let Some(asker) = asker {
            drop(asker.send(answer));
        }
    }
    tracing::debug!("the launcher has gone");
    *lock(&waiting) = None;
}

pub(crate) fn out_of_descriptors() -> Fault {
    let errno = rustix::io::Errno::MFILE.raw_os_error();
    Fault { step: "receive a descriptor".to_owned(), errno }
}

pub(crate) async fn send(
    socket: &AsyncFd<OwnedFd>,
    message: &impl serde::Serialize,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let packet = Packet::new(message)?;
    let attempt = |fd: &OwnedFd| packet.send(fd, descriptors).map_err(io::Error::from);
    socket.async_io(Interest::WRITABLE, attempt).await
}

pub(crate) async fn receive<M: serde::de::DeserializeOwned>(
    socket: &AsyncFd<OwnedFd>,
) -> io::Result<Option<(M, Vec<OwnedFd>)>> {
    socket.async_io(Interest::READABLE, |fd| wire::receive(fd.as_fd())).await
}

/// Watches a descriptor of ours.
#[expect(
    deprecated,
    reason = "unsound only for types whose descriptor may change while watched; an OwnedFd's cannot"
)]
pub(crate) fn watched(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(descriptor)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
