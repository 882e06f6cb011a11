//! From a network mode to the sockets of a jail, and from its sockets to who serves them.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use egress::{Gate, GateConfig, PROXY_PORT, Policy, STAND_IN_PROXY, TrafficLimits};
use ids::SessionId;
use jail::{Jail, Listener, Local, Network, Transport};
use phantom::{Door, Proxy};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::config::{BaseUrl, Host, Scheme};
use crate::exec::NetworkUse;

const DNS_PORT: u16 = 53;

/// What a jail may reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    None,
    Loopback,
    Allowlist(Policy, TrafficLimits),
}

/// Who serves a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Server {
    Any,
    Dns,
    DnsStream,
    HttpProxy,
    Phantom,
    Attempts,
}

/// A jail's network before the jail is there.
#[derive(Debug)]
pub struct Plan {
    network: Network,
    servers: Vec<Server>,
    policy: Option<Policy>,
    limits: TrafficLimits,
}

/// Why an allowlist cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    #[error("port {0} cannot be allowed: inside a jail it is agentjail's own ({1})")]
    Taken(u16, &'static str),
}

impl Plan {
    /// The sockets for a mode; with the phantom proxy's, if there is a URL to find it at.
    pub fn new(mode: Mode, phantom: Option<&BaseUrl>) -> Result<Self, PlanError> {
        let mut plan = Self {
            network: Network::default(),
            servers: Vec::new(),
            policy: None,
            limits: TrafficLimits::default(),
        };
        match mode {
            // TCP goes to the phantom proxy or nowhere.
            Mode::None => plan.network.isolated = true,
            Mode::Loopback => plan.network.loopback = true,
            Mode::Allowlist(policy, limits) => {
                plan.limits = limits;
                refuse_taken(&policy, phantom)?;
                plan.network.loopback = true;
                plan.network.local = Local::Everything;
                let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
                plan.listen(Transport::Udp, here, DNS_PORT, Server::Dns);
                plan.listen(Transport::Tcp, here, DNS_PORT, Server::DnsStream);
                plan.listen(Transport::Tcp, here, PROXY_PORT, Server::HttpProxy);
                for port in policy.ports() {
                    plan.listen(Transport::Tcp, Ipv6Addr::UNSPECIFIED.into(), port, Server::Any);
                }
                plan.listen(Transport::Attempts, here, 0, Server::Attempts);
                plan.policy = Some(policy);
            }
        }
        if let Some(url) = phantom {
            plan.add_phantom(url);
        }
        Ok(plan)
    }

    /// What to ask of the jail.
    pub fn network(&self) -> &Network {
        &self.network
    }

    fn add_phantom(&mut self, url: &BaseUrl) {
        let address = address_inside(url);
        self.network.loopback = true;
        if self.network.local == Local::Loopback && !address.is_loopback() {
            self.network.local = Local::And(address);
        }
        self.listen(Transport::Tcp, address, url.port, Server::Phantom);
    }

    fn listen(&mut self, transport: Transport, address: IpAddr, port: u16, server: Server) {
        let address = SocketAddr::new(address, port);
        self.network.listeners.push(Listener { transport, address });
        self.servers.push(server);
    }
}

fn refuse_taken(policy: &Policy, phantom: Option<&BaseUrl>) -> Result<(), PlanError> {
    let own = [(DNS_PORT, "DNS"), (PROXY_PORT, "the HTTP proxy")];
    let phantom = phantom.map(|url| (url.port, "the phantom proxy"));
    let ports = policy.ports();
    match own.into_iter().chain(phantom).find(|(port, _)| ports.contains(port)) {
        Some((port, what)) => Err(PlanError::Taken(port, what)),
        None => Ok(()),
    }
}

/// Where a jail finds the phantom proxy: the address of the URL, or one that stands for its name.
fn address_inside(url: &BaseUrl) -> IpAddr {
    match &url.host {
        Host::Address(address) if address.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        Host::Address(address) => *address,
        Host::Name(name) if name.as_str() == "localhost" => Ipv4Addr::LOCALHOST.into(),
        Host::Name(_) => STAND_IN_PROXY.into(),
    }
}

/// Names that every jail's `/etc/hosts` must know for the phantom proxy to be found.
pub fn hosts(url: &BaseUrl) -> Vec<(String, IpAddr)> {
    match &url.host {
        Host::Name(name) if name.as_str() != "localhost" => {
            vec![(name.to_string(), STAND_IN_PROXY.into())]
        }
        Host::Name(_) | Host::Address(_) => Vec::new(),
    }
}

/// The proxy as a session's jails reach it.
#[derive(Debug, Clone)]
pub struct PhantomAccess {
    pub proxy: Proxy,
    pub url: BaseUrl,
    pub session: SessionId,
}

/// The servers of one jail's sockets. Dropping it ends them.
#[derive(Debug)]
pub struct Served {
    gate: Gate,
    /// Ports with a listener; `None` without an allowlist.
    ports: Option<BTreeSet<u16>>,
    phantom: Option<BaseUrl>,
    _stop: DropGuard,
}

/// Why a policy cannot be put in force in a live jail.
#[derive(Debug, thiserror::Error)]
pub enum SteerError {
    #[error("this jail was started without an allowlist")]
    NoGate,
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(
        "port {0} cannot be added to a jail that runs: ports below 1024 must be allowed from the start"
    )]
    LowPort(u16),
    #[error("the list is in force, but port {0} is in use inside the jail and cannot be served")]
    Listen(u16, #[source] jail::OrderError),
    #[error("could not serve the jail's network")]
    Serve(#[from] io::Error),
    #[error("the list is in force, but the jail is too busy to listen on the ports that it adds")]
    Slow,
}

impl Served {
    /// Puts another policy in force; gives how many open connections it cut.
    pub async fn steer(&mut self, jail: &Jail, policy: Policy) -> Result<usize, SteerError> {
        let ports = self.ports.as_mut().ok_or(SteerError::NoGate)?;
        refuse_taken(&policy, self.phantom.as_ref())?;
        let added: Vec<u16> = policy.ports().difference(ports).copied().collect();
        if let Some(low) = added.iter().find(|port| **port < 1024) {
            return Err(SteerError::LowPort(*low));
        }
        // What is taken away is taken away first: a jail that sits on a port must not keep others.
        let cut = self.gate.replace(policy);
        for port in added {
            let address = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port);
            let listener = Listener { transport: Transport::Tcp, address };
            let socket =
                jail.listen(listener).await.map_err(|error| SteerError::Listen(port, error))?;
            self.gate.serve_any(stream_listener(socket)?);
            ports.insert(port);
        }
        Ok(cut)
    }

    /// What went through, and what did not; of a jail with an allowlist.
    pub fn used(&self) -> Option<NetworkUse> {
        self.ports.as_ref()?;
        Some(NetworkUse::new(self.gate.traffic(), self.gate.refused()))
    }
}

/// Serves what a jail handed out, as planned.
pub fn serve(
    plan: Plan,
    listeners: Vec<OwnedFd>,
    dialler: &egress::Dialler,
    phantom: Option<PhantomAccess>,
    tasks: &tokio_util::task::TaskTracker,
) -> io::Result<Served> {
    let ports = plan.policy.as_ref().map(Policy::ports);
    let policy = plan.policy.unwrap_or_default();
    let gate = Gate::new(GateConfig { policy, dialler: dialler.clone(), limits: plan.limits });
    let stop = CancellationToken::new();
    let url = phantom.as_ref().map(|access| access.url.clone());
    for (server, listener) in plan.servers.into_iter().zip(listeners) {
        match server {
            Server::Any => gate.serve_any(stream_listener(listener)?),
            Server::Attempts => gate.watch_attempts(UdpSocket::from_std(listener.into())?),
            Server::Dns => gate.serve_dns(UdpSocket::from_std(listener.into())?),
            Server::DnsStream => gate.serve_dns_stream(stream_listener(listener)?),
            Server::HttpProxy => gate.serve_proxy(stream_listener(listener)?),
            Server::Phantom => {
                let Some(access) = phantom.clone() else { continue };
                tasks.spawn(serve_phantom(access, stream_listener(listener)?, stop.clone()));
            }
        }
    }
    Ok(Served { gate, ports, phantom: url, _stop: stop.drop_guard() })
}

async fn serve_phantom(access: PhantomAccess, listener: TcpListener, stop: CancellationToken) {
    match access.url.scheme {
        Scheme::Http => access.proxy.serve(listener, Door::Session(access.session), stop).await,
        Scheme::Https => {
            stop.run_until_cancelled(pass_on(&access.url, listener)).await;
        }
    }
}

/// Where TLS ends in front of the proxy, a jail's connections are passed to that place, and only
/// there.
async fn pass_on(url: &BaseUrl, listener: TcpListener) {
    let mut relays = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (host, port) = (url.host.clone(), url.port);
        relays.spawn(async move {
            let upstream = match &host {
                Host::Address(address) => TcpStream::connect((*address, port)).await,
                Host::Name(name) => TcpStream::connect((name.as_str(), port)).await,
            };
            match upstream {
                Ok(upstream) => drop(egress::relay(stream, upstream).await),
                Err(error) => tracing::warn!(%error, "the phantom proxy's own URL does not answer"),
            }
        });
        while relays.try_join_next().is_some() {}
    }
}

fn stream_listener(listener: OwnedFd) -> io::Result<TcpListener> {
    TcpListener::from_std(listener.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(mode: Mode, url: Option<&str>) -> Plan {
        let url = url.map(|url| url.parse().unwrap());
        Plan::new(mode, url.as_ref()).unwrap()
    }

    fn allow(rules: &[&str]) -> Mode {
        Mode::Allowlist(
            Policy::new(rules.iter().map(|rule| rule.parse().unwrap()).collect()),
            TrafficLimits::default(),
        )
    }

    #[test]
    fn none_without_a_session_is_nothing_at_all() {
        let plan = plan(Mode::None, None);
        assert!(!plan.network.loopback && plan.network.listeners.is_empty());
    }

    #[test]
    fn the_phantom_proxy_is_where_its_url_says_in_every_mode() {
        for mode in [Mode::None, Mode::Loopback, allow(&["example.com"])] {
            let plan = plan(mode, Some("http://127.0.0.1:8443"));
            let phantom = plan.network.listeners.last().unwrap();
            assert_eq!(phantom.address, "127.0.0.1:8443".parse().unwrap());
            assert!(plan.network.loopback);
        }
        let by_address = plan(Mode::None, Some("http://10.1.2.3:9000"));
        assert_eq!(by_address.network.local, Local::And("10.1.2.3".parse().unwrap()));
        let by_name = plan(Mode::None, Some("http://proxy.internal:9000"));
        assert_eq!(by_name.network.listeners[0].address, "198.18.0.2:9000".parse().unwrap());
    }

    #[test]
    fn ports_that_are_ours_cannot_be_allowed() {
        let url = "http://127.0.0.1:8443".parse().unwrap();
        for rule in ["a.example:53", "a.example:3128", "a.example:8443"] {
            assert!(Plan::new(allow(&[rule]), Some(&url)).is_err(), "{rule}");
        }
        assert!(Plan::new(allow(&["a.example:8443"]), None).is_ok());
    }
}
