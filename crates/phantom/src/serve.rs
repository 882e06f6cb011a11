//! Accepting connections: on the proxy's own listener, and from inside jails.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use httpkit::linger;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use ids::SessionId;
use mutation::{Protection, keeps};
use store::Store;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::book::{Book, Grant};
use crate::forward;
use crate::journal::Journal;
use crate::provider::Providers;
use crate::upstream::{TlsError, Upstreams};

/// How long a client may take to send a request's head.
const HEAD: Duration = Duration::from_secs(30);

/// Connections served at once by one listener; more wait in its queue. Each listener has its own, so
/// that a jail which opens all it can takes nobody else's.
const MOST_OF_THE_PUBLIC: usize = 4096;
const MOST_OF_A_JAIL: usize = 128;

/// How the proxy works.
#[derive(Debug, Clone)]
pub struct Config {
    pub providers: Providers,
    /// How long an upstream, or a client, may be silent in the middle of an exchange. There is no
    /// limit on an exchange's length.
    pub silence: Duration,
}

/// Why there is no proxy.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct StartError(#[from] TlsError);

/// Through which listener a client came.
#[derive(Debug, Clone)]
pub enum Door {
    /// The proxy's own: any token will do.
    Public,
    /// A jail's: only the tokens of the session it runs for.
    Session(SessionId),
}

impl Door {
    pub(crate) fn admits(&self, grant: &Grant) -> bool {
        match self {
            Self::Public => true,
            Self::Session(session) => grant.session == *session,
        }
    }
}

/// The proxy. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Proxy(Arc<Shared>);

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) providers: Providers,
    pub(crate) book: Book,
    pub(crate) journal: Journal,
    pub(crate) upstreams: Upstreams,
    pub(crate) silence: Duration,
    tasks: TaskTracker,
    end: CancellationToken,
}

impl Shared {
    /// Runs a task that the proxy waits for when it is closed.
    pub(crate) fn spawn_lasting(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Runs a task for as long as it takes, or until the proxy is closed.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let end = self.end.clone();
        self.tasks.spawn(async move { end.run_until_cancelled(task).await });
    }
}

impl Proxy {
    /// A proxy that serves nobody yet.
    pub fn new(config: Config, book: Book, store: Store) -> Result<Self, StartError> {
        Ok(Self(Arc::new(Shared {
            providers: config.providers,
            book,
            journal: Journal::open(store),
            upstreams: Upstreams::new()?,
            silence: config.silence,
            tasks: TaskTracker::new(),
            end: CancellationToken::new(),
        })))
    }

    /// Tokens and keys in force.
    pub fn book(&self) -> &Book {
        &self.0.book
    }

    /// The way to the audit table.
    pub fn journal(&self) -> &Journal {
        &self.0.journal
    }

    /// The upstreams.
    pub fn providers(&self) -> &Providers {
        &self.0.providers
    }

    /// Serves a listener until `stop`; connections that are open then may finish.
    pub async fn serve(&self, listener: TcpListener, door: Door, stop: CancellationToken) {
        let places = Arc::new(Semaphore::new(match door {
            _ if !keeps(Protection::Places) => Semaphore::MAX_PERMITS,
            Door::Public => MOST_OF_THE_PUBLIC,
            Door::Session(_) => MOST_OF_A_JAIL,
        }));
        loop {
            let next = async {
                let place = Arc::clone(&places).acquire_owned().await.ok()?;
                Some((place, listener.accept().await))
            };
            let Some(Some((place, accepted))) = stop.run_until_cancelled(next).await else {
                return;
            };
            match accepted {
                Ok((stream, _)) => {
                    let served = self.clone().serve_stream(stream, door.clone(), stop.clone());
                    self.0.spawn(async move {
                        served.await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "could not accept a connection to the phantom proxy");
                    // Out of descriptors, most likely: others must end first.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    /// Serves one connection until it ends, or until `stop` and the end of its exchange.
    pub async fn serve_stream(self, stream: TcpStream, door: Door, stop: CancellationToken) {
        // A streamed token must not wait for the next one.
        drop(stream.set_nodelay(true));
        let shared = self.0;
        let cut = CancellationToken::new();
        let (rests, left) = linger::channel();
        let service = service_fn(|request| {
            let (shared, door, cut, rests) = (&shared, &door, &cut, &rests);
            async move { Ok::<_, Infallible>(forward::answer(shared, door, cut, rests, request).await) }
        });
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(128 * 1024);
        let connection = builder.serve_connection(TokioIo::new(stream), service).with_upgrades();
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            never = linger::read_out(left) => match never {},
            // A client that breaks off has nobody to be told.
            ended = connection.as_mut() => drop(ended),
            // Its exchange was revoked: what is not read yet will not be.
            () = cut.cancelled() => {}
            () = stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    ended = connection => drop(ended),
                    () = cut.cancelled() => {}
                }
            }
        }
    }

    /// Ends what is still open after `grace`, and writes down what is left to write.
    pub async fn close(self, grace: Duration) {
        self.0.tasks.close();
        if tokio::time::timeout(grace, self.0.tasks.wait()).await.is_err() {
            self.0.end.cancel();
            self.0.tasks.wait().await;
        }
        self.0.journal.flush().await;
    }
}
