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

use crate::client::Client;
use crate::dial::{DialError, Dialler};
use crate::host::HostName;
use crate::meter::{Meter, Metered, Traffic, TrafficLimits};
use crate::passages::Passages;
use crate::policy::{Policy, Protocol};
use crate::refusals::{Reason, Refusals, Refused};
use crate::standin::StandIns;
use crate::tunnel::{relay_out, tunnel_tls};
use crate::{attempts, connect, dns, plain_http};

/// Where a jail finds the HTTP proxy for tools that insist on one, at 127.0.0.1.
pub const PROXY_PORT: u16 = 3128;

/// Connections one jail may have open at once. More wait in the listener's queue.
const MOST_CONNECTIONS: usize = 256;

/// How long a client may take to say which host it wants.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);

/// The longest DNS message over TCP that is a question.
const LONGEST_QUERY: usize = 4096;

/// What a gate lets through, how it dials, and how much.
#[derive(Debug, Clone, Default)]
pub struct GateConfig {
    pub policy: Policy,
    pub dialler: Dialler,
    pub limits: TrafficLimits,
}

/// A connection out.
pub(crate) type Out = Metered<TcpStream>;

/// Serves one jail. Dropping it ends every connection and closes the listeners.
#[derive(Debug)]
pub struct Gate {
    rules: Arc<Rules>,
}

/// What all connections of a jail share.
#[derive(Debug)]
pub(crate) struct Rules {
    /// Replaced as a whole: a connection is judged by the old one or the new one.
    policy: Mutex<Arc<Policy>>,
    dialler: Dialler,
    stand_ins: Mutex<StandIns>,
    meter: Arc<Meter>,
    passages: Passages,
    refusals: Refusals,
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
    #[error("{host}:{port} is not allowed")]
    NotAllowed { host: String, port: u16, reason: Reason },
    #[error("{0}")]
    Malformed(&'static str),
    #[error("this jail has used up what it may send and receive")]
    UsedUp,
    #[error("this jail opens connections faster than it may")]
    TooFast,
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
            policy: Mutex::new(Arc::new(config.policy)),
            dialler: config.dialler,
            stand_ins: Mutex::default(),
            meter: Arc::new(Meter::new(config.limits)),
            passages: Passages::default(),
            refusals: Refusals::default(),
            places: Arc::new(Semaphore::new(
                config.limits.connections.unwrap_or(MOST_CONNECTIONS).min(MOST_CONNECTIONS),
            )),
            tasks: TaskTracker::new(),
            end: CancellationToken::new(),
        };
        Self { rules: Arc::new(rules) }
    }

    /// Puts another policy in force. Connections that it does not allow are cut; gives how many.
    /// Ports that the old one did not name need listeners: see [`Policy::ports`].
    pub fn replace(&self, policy: Policy) -> usize {
        let policy = Arc::new(policy);
        *self.rules.policy.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&policy);
        self.rules.passages.cut(|target, port| match target {
            Target::Name(name) => policy.allows(name, port),
            Target::Address(address) => policy.allows_address(*address, port),
        })
    }

    /// What was sent and received so far.
    pub fn traffic(&self) -> Traffic {
        self.rules.meter.traffic()
    }

    /// What was refused so far; and how many refusals came after as many as are remembered.
    pub fn refused(&self) -> (Vec<Refused>, u64) {
        self.rules.refusals.all()
    }

    /// Serves a listener on which any destination address arrives.
    pub fn serve_any(&self, listener: TcpListener) {
        self.accept(listener, |rules, stream| async move {
            let destination = stream.destination();
            // The jail sees a reset, as from a host that refuses.
            if let (Err(refusal), Ok(destination)) =
                (transparent(&rules, stream).await, destination)
            {
                rules.refuse(&refusal, Some(destination));
            }
        });
    }

    /// Writes down what reaches no listener. The socket gives packets, from their IP header on.
    pub fn watch_attempts(&self, socket: UdpSocket) {
        let rules = Arc::clone(&self.rules);
        self.rules.spawn(async move {
            let mut packet = [0; 128];
            while let Ok(length) = socket.recv(&mut packet).await {
                if let Some((protocol, destination)) = attempts::destination(&packet[..length]) {
                    rules.note_attempt(protocol, destination);
                }
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
        serve: impl Fn(Arc<Rules>, Client) -> F + Send + 'static,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let rules = Arc::clone(&self.rules);
        self.rules.spawn(async move {
            loop {
                let stream = match listener.accept().await {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        tracing::warn!(%error, "could not accept a jail's connection");
                        // Out of descriptors, most likely: others must end first.
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        continue;
                    }
                };
                // After the connection: a listener that nobody dials must not hold a place.
                let Ok(place) = Arc::clone(&rules.places).acquire_owned().await else { return };
                let client = Client::new(stream, place);
                rules.spawn(serve(Arc::clone(&rules), client));
            }
        });
    }
}

#[cfg(fuzzing)]
impl Gate {
    pub(crate) fn rules(&self) -> &Arc<Rules> {
        &self.rules
    }
}

#[cfg(fuzzing)]
impl Rules {
    /// From now on no connection is opened.
    pub(crate) fn forbid_dialling(&self) {
        self.meter.use_up();
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

    fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.policy.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn answer(&self, query: &[u8]) -> Option<Vec<u8>> {
        let mut stand_ins = self.stand_ins.lock().unwrap_or_else(PoisonError::into_inner);
        let refused = |name: &str| {
            self.refusals.add(Reason::HostNotAllowed, Protocol::Dns, name, 0);
        };
        dns::answer(query, &self.policy(), &mut stand_ins, refused)
    }

    /// Writes down why a connection went nowhere.
    pub(crate) fn refuse(&self, refusal: &Refusal, destination: Option<SocketAddr>) {
        let dialled = |fallback: &str| match destination {
            Some(address) => (self.name_of(address.ip()), address.port()),
            None => (fallback.to_owned(), 0),
        };
        let (reason, (host, port)) = match refusal {
            Refusal::UnknownAddress(address) => {
                (Reason::AddressNotAllowed, dialled(&address.to_string()))
            }
            Refusal::NotAllowed { host, port, reason } => (*reason, (host.clone(), *port)),
            Refusal::Malformed(_) => (Reason::Malformed, dialled("")),
            Refusal::UsedUp => (Reason::ByteLimit, dialled("")),
            Refusal::TooFast => (Reason::RateLimit, dialled("")),
            Refusal::Silent => (Reason::NoName, dialled("")),
            Refusal::OtherName { asked, .. } => {
                let (dialled, port) = dialled("");
                let host = asked.as_ref().map_or(dialled, |asked| printable(asked));
                (Reason::HostMismatch, (host, port))
            }
            Refusal::EncryptedName => (Reason::EncryptedName, dialled("")),
            Refusal::Dial(DialError::NotPublic { host }) => {
                (Reason::PrivateAddress, (host.clone(), destination.map_or(0, |at| at.port())))
            }
            // Nothing of ours refused it.
            Refusal::Dial(_) | Refusal::Broken(_) => return,
        };
        self.refusals.add(reason, Protocol::Tcp, &host, port);
    }

    fn note_attempt(&self, protocol: Protocol, destination: SocketAddr) {
        let (address, port) = (destination.ip().to_canonical(), destination.port());
        // What a jail says to itself is its own affair.
        if address.is_loopback() {
            return;
        }
        // A port that was added to a jail that runs: the socket does not know of it.
        if protocol == Protocol::Tcp && self.target(destination).is_ok() {
            return;
        }
        let host = self.name_of(address);
        let reason = match protocol {
            Protocol::Udp => Reason::UdpNotAllowed,
            _ if host.parse::<IpAddr>().is_err() => Reason::PortNotAllowed,
            _ if self.policy().knows_address(address) => Reason::PortNotAllowed,
            _ => Reason::AddressNotAllowed,
        };
        self.refusals.add(reason, protocol, &host, port);
    }

    /// The name an address stands for, or the address.
    fn name_of(&self, address: IpAddr) -> String {
        let stand_ins = self.stand_ins.lock().unwrap_or_else(PoisonError::into_inner);
        let address = address.to_canonical();
        stand_ins.name(address).map_or_else(|| address.to_string(), ToString::to_string)
    }

    /// What a destination address means, if policy allows it.
    fn target(&self, destination: SocketAddr) -> Result<Target, Refusal> {
        let (address, port) = (destination.ip().to_canonical(), destination.port());
        let name = {
            let stand_ins = self.stand_ins.lock().unwrap_or_else(PoisonError::into_inner);
            stand_ins.name(address).cloned()
        };
        if let Some(name) = name {
            return self.allow_name(name, port);
        }
        if self.policy().allows_address(address, port) {
            return Ok(Target::Address(address));
        }
        Err(Refusal::UnknownAddress(address))
    }

    /// What a host that a client named means, if policy allows it.
    pub(crate) fn named(&self, host: &str, port: u16) -> Result<Target, Refusal> {
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if let Ok(address) = bare.parse() {
            let policy = self.policy();
            if policy.allows_address(address, port) {
                return Ok(Target::Address(address));
            }
            let reason = if policy.knows_address(address) {
                Reason::PortNotAllowed
            } else {
                Reason::AddressNotAllowed
            };
            return Err(Refusal::NotAllowed { host: bare.to_owned(), port, reason });
        }
        match HostName::parse(host) {
            Ok(name) => self.allow_name(name, port),
            Err(_) => Err(Refusal::Malformed("what is asked for is not a host name")),
        }
    }

    fn allow_name(&self, name: HostName, port: u16) -> Result<Target, Refusal> {
        let policy = self.policy();
        if policy.allows(&name, port) {
            return Ok(Target::Name(name));
        }
        let reason =
            if policy.knows(&name) { Reason::PortNotAllowed } else { Reason::HostNotAllowed };
        Err(Refusal::NotAllowed { host: name.to_string(), port, reason })
    }

    fn judge(&self, target: &Target, port: u16) -> Result<(), Refusal> {
        match target {
            Target::Name(name) => self.allow_name(name.clone(), port).map(drop),
            Target::Address(address) if self.policy().allows_address(*address, port) => Ok(()),
            Target::Address(address) => Err(Refusal::UnknownAddress(*address)),
        }
    }

    pub(crate) async fn dial(&self, target: &Target, port: u16) -> Result<Out, Refusal> {
        if self.meter.is_used_up() {
            return Err(Refusal::UsedUp);
        }
        if !self.meter.may_open() {
            return Err(Refusal::TooFast);
        }
        // Before the dial: a policy that changes during it shall find the connection.
        let passage = self.passages.open(target, port);
        // The target may have been judged long ago, by a policy that was replaced since.
        self.judge(target, port)?;
        let stream = match target {
            Target::Name(name) => self.dialler.dial(name, port).await?,
            Target::Address(address) => self.dialler.dial_address(*address, port).await?,
        };
        Ok(Metered::new(stream, Arc::clone(&self.meter), passage))
    }
}

async fn transparent(rules: &Arc<Rules>, mut stream: Client) -> Result<(), Refusal> {
    let destination = stream.destination()?;
    let port = destination.port();
    let target = match rules.target(destination) {
        Ok(target) => target,
        Err(refusal) => {
            stream.end_by_reset();
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
            relay_out(stream, upstream).await
        }
    }
}

/// A name as a client sent it: it may hold anything.
fn printable(text: &str) -> String {
    text.chars().take(253).map(|c| if c.is_ascii_graphic() { c } else { '?' }).collect()
}

async fn dns_stream(rules: &Rules, mut stream: Client) -> io::Result<()> {
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
