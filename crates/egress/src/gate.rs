//! The host's side of one jail's network: serves the sockets the jail handed out.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::dial::{DialError, Dialler};
use crate::host::HostName;
use crate::policy::Policy;
use crate::standin::StandIns;
use crate::tls::{self, Reading};
use crate::{connect, dns, plain_http, relay};

/// Where a jail finds the HTTP proxy for tools that insist on one, at 127.0.0.1.
pub const PROXY_PORT: u16 = 3128;

/// Connections one jail may have open at once. More wait in the listener's queue.
const MOST_CONNECTIONS: usize = 256;

/// How long a client may take to say which host it wants.
const PATIENCE: Duration = Duration::from_secs(15);

/// The longest DNS message over TCP that is a question.
const LONGEST_QUERY: usize = 4096;

/// What a gate lets through, and how it dials.
#[derive(Debug, Clone, Default)]
pub struct GateConfig {
    pub policy: Policy,
    pub dialler: Dialler,
}

/// Serves one jail. Dropping it ends every connection and closes the listeners.
#[derive(Debug)]
pub struct Gate {
    rules: Arc<Rules>,
}

/// What all connections of a jail share.
#[derive(Debug)]
pub(crate) struct Rules {
    pub(crate) policy: Policy,
    pub(crate) dialler: Dialler,
    stand_ins: Mutex<StandIns>,
    places: Arc<Semaphore>,
    tasks: TaskTracker,
    end: CancellationToken,
}

/// Where a connection may go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    Name(HostName),
    Address(IpAddr),
}

/// Why a connection goes nowhere.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("{0} is not a name this jail has looked up")]
    UnknownAddress(IpAddr),
    #[error("{0} is not allowed")]
    NotAllowed(String),
    #[error("the client did not say which host it wants")]
    Silent,
    #[error("the client asked for {asked:?} at the address of {name}")]
    OtherName { asked: Option<String>, name: HostName },
    #[error("the client encrypts the name of the host it wants")]
    EncryptedName,
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("the connection broke")]
    Broken(#[from] io::Error),
}

impl Gate {
    /// A gate that serves nothing yet.
    pub fn new(config: GateConfig) -> Self {
        let rules = Rules {
            policy: config.policy,
            dialler: config.dialler,
            stand_ins: Mutex::default(),
            places: Arc::new(Semaphore::new(MOST_CONNECTIONS)),
            tasks: TaskTracker::new(),
            end: CancellationToken::new(),
        };
        Self { rules: Arc::new(rules) }
    }

    /// Serves a listener on which any destination address arrives.
    pub fn serve_any(&self, listener: TcpListener) {
        self.accept(listener, |rules, stream| async move {
            // The jail sees a reset, as from a host that refuses.
            if let Err(refusal) = transparent(&rules, stream).await {
                tracing::debug!(%refusal, "egress refused");
            }
        });
    }

    /// Serves the HTTP proxy.
    pub fn serve_proxy(&self, listener: TcpListener) {
        self.accept(listener, connect::serve);
    }

    /// Serves DNS over TCP.
    pub fn serve_dns_stream(&self, listener: TcpListener) {
        self.accept(listener, |rules, stream| async move {
            drop(timeout(PATIENCE, dns_stream(&rules, stream)).await);
        });
    }

    /// Serves DNS over UDP.
    pub fn serve_dns(&self, socket: UdpSocket) {
        let rules = Arc::clone(&self.rules);
        self.rules.spawn(async move {
            let mut query = [0; 1500];
            while let Ok((length, client)) = socket.recv_from(&mut query).await {
                if let Some(answer) = rules.answer(&query[..length]) {
                    // A client that went away is not ours to mend.
                    drop(socket.send_to(&answer, client).await);
                }
            }
        });
    }

    fn accept<F>(
        &self,
        listener: TcpListener,
        serve: impl Fn(Arc<Rules>, TcpStream) -> F + Send + 'static,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let rules = Arc::clone(&self.rules);
        self.rules.spawn(async move {
            loop {
                let Ok(place) = Arc::clone(&rules.places).acquire_owned().await else { return };
                let stream = match listener.accept().await {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        tracing::warn!(%error, "could not accept a jail's connection");
                        // Out of descriptors, most likely: others must end first.
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        continue;
                    }
                };
                let served = serve(Arc::clone(&rules), stream);
                rules.spawn(async move {
                    served.await;
                    drop(place);
                });
            }
        });
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.rules.end.cancel();
    }
}

impl Rules {
    /// Runs a task for as long as it takes, or until the gate goes.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let end = self.end.clone();
        self.tasks.spawn(async move { end.run_until_cancelled(task).await });
    }

    fn answer(&self, query: &[u8]) -> Option<Vec<u8>> {
        let mut stand_ins = self.stand_ins.lock().unwrap_or_else(PoisonError::into_inner);
        dns::answer(query, &self.policy, &mut stand_ins)
    }

    /// What a destination address means, if policy allows it.
    fn target(&self, destination: SocketAddr) -> Result<Target, Refusal> {
        let (address, port) = (destination.ip().to_canonical(), destination.port());
        let stand_ins = self.stand_ins.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(name) = stand_ins.name(address) {
            return self.allow_name(name.clone(), port);
        }
        if self.policy.allows_address(address, port) {
            return Ok(Target::Address(address));
        }
        Err(Refusal::UnknownAddress(address))
    }

    /// What a host that a client named means, if policy allows it.
    pub(crate) fn named(&self, host: &str, port: u16) -> Result<Target, Refusal> {
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if let Ok(address) = bare.parse() {
            if self.policy.allows_address(address, port) {
                return Ok(Target::Address(address));
            }
            return Err(Refusal::NotAllowed(format!("{host}:{port}")));
        }
        match HostName::parse(host) {
            Ok(name) => self.allow_name(name, port),
            Err(_) => Err(Refusal::NotAllowed("what is not a host name".to_owned())),
        }
    }

    fn allow_name(&self, name: HostName, port: u16) -> Result<Target, Refusal> {
        if self.policy.allows(&name, port) {
            return Ok(Target::Name(name));
        }
        Err(Refusal::NotAllowed(format!("{name}:{port}")))
    }

    pub(crate) async fn dial(&self, target: &Target, port: u16) -> Result<TcpStream, DialError> {
        match target {
            Target::Name(name) => self.dialler.dial(name, port).await,
            Target::Address(address) => self.dialler.dial_address(*address, port).await,
        }
    }
}

async fn transparent(rules: &Arc<Rules>, mut stream: TcpStream) -> Result<(), Refusal> {
    let destination = stream.local_addr()?;
    let port = destination.port();
    let target = match rules.target(destination) {
        Ok(target) => target,
        Err(refusal) => {
            drop(stream.set_zero_linger());
            return Err(refusal);
        }
    };
    match port {
        80 => {
            plain_http::serve(rules, stream, target).await;
            Ok(())
        }
        443 => tunnel_tls(rules, &mut stream, &target, port).await,
        _ => {
            let upstream = rules.dial(&target, port).await?;
            Ok(relay::relay(stream, upstream).await?)
        }
    }
}

/// Relays TLS to a host, if that is the host the client's hello names.
pub(crate) async fn tunnel_tls(
    rules: &Rules,
    stream: &mut (impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin),
    target: &Target,
    port: u16,
) -> Result<(), Refusal> {
    let opening = timeout(PATIENCE, read_hello(stream, target)).await;
    let opening = opening.unwrap_or(Err(Refusal::Silent))?;
    let mut upstream = rules.dial(target, port).await?;
    upstream.write_all(&opening).await?;
    Ok(relay::relay(stream, upstream).await?)
}

/// Reads until the ClientHello is whole and says what it must; gives what was read.
async fn read_hello(
    stream: &mut (impl tokio::io::AsyncRead + Unpin),
    target: &Target,
) -> Result<Vec<u8>, Refusal> {
    let mut opening = Vec::with_capacity(2048);
    loop {
        if opening.len() > 2 * tls::LONGEST_HELLO || stream.read_buf(&mut opening).await? == 0 {
            return Err(Refusal::Silent);
        }
        let hello = match tls::read(&opening) {
            Reading::More => continue,
            Reading::Not => return Err(Refusal::Silent),
            Reading::Done(hello) => hello,
        };
        // A name that only the server can read could be any name that server has.
        if hello.encrypted {
            return Err(Refusal::EncryptedName);
        }
        let Target::Name(name) = target else { return Ok(opening) };
        let asked = hello.server_name.as_deref().and_then(|asked| HostName::parse(asked).ok());
        if asked.as_ref() == Some(name) {
            return Ok(opening);
        }
        return Err(Refusal::OtherName { asked: hello.server_name, name: name.clone() });
    }
}

async fn dns_stream(rules: &Rules, mut stream: TcpStream) -> io::Result<()> {
    loop {
        let length = usize::from(stream.read_u16().await?);
        if length > LONGEST_QUERY {
            return Ok(());
        }
        let mut query = vec![0; length];
        stream.read_exact(&mut query).await?;
        let Some(answer) = rules.answer(&query) else { return Ok(()) };
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        stream.write_all(&[&length.to_be_bytes(), answer.as_slice()].concat()).await?;
    }
}
