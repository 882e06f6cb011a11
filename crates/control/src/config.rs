//! What the control plane is told at start: checked, in domain types.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use egress::Dialler;
use ids::ServiceId;
use phantom::Providers;
use secret::Secret;

use crate::keys::ApiKeys;
use crate::state::{Lock, StateDir};

/// Everything.
#[derive(Debug)]
pub struct Config {
    pub api_addr: SocketAddr,
    pub proxy_addr: SocketAddr,
    /// Where the gateway listens, if there is one.
    pub gateway_addr: Option<SocketAddr>,
    /// Which backends the gateway may dial beside public ones.
    pub gateway_dialler: Dialler,
    /// Contents by their hash; `None` is in the state directory.
    pub pool_dir: Option<PathBuf>,
    /// PEM file of more certificate authorities for clones.
    pub git_authorities: Option<PathBuf>,
    /// What jails are told.
    pub proxy_base_url: BaseUrl,
    /// `None` lets everyone in, as an admin of `dev`.
    pub keys: Option<ApiKeys>,
    pub state: StateDir,
    /// Held for as long as the server runs.
    pub lock: Lock,
    pub providers: Providers,
    /// Keys that become credentials of tenant `dev`.
    pub seeds: Vec<(ServiceId, Secret)>,
    pub exec: ExecConfig,
    /// How the egress of jails resolves names and which private networks it may dial.
    pub dialler: Dialler,
    /// Web origins that may call the API from a browser.
    pub cors_origins: Vec<String>,
    /// How long an upstream may be silent in the middle of an exchange.
    pub upstream_silence: Duration,
    pub persistence: Persistence,
    /// How long requests in flight may take after a signal to stop.
    pub grace: Duration,
}

/// How commands run.
#[derive(Debug, Clone, Copy)]
pub struct ExecConfig {
    pub default_memory_mb: u64,
    pub default_timeout_secs: u64,
    /// Commands running at once, on the whole server.
    pub max_concurrent: usize,
    /// Agents that live in workspaces, paused ones included, on the whole server.
    pub max_agents: usize,
    /// Bytes of each stream that a result carries.
    pub output_limit_bytes: usize,
    /// Host user and group of the first tenant's jails; the others' follow. Of use when the engine is
    /// root.
    pub first_host_id: u32,
    /// What to do where a limit or protection cannot be had on this machine.
    pub enforcement: jail::Enforcement,
    pub quotas: Quotas,
}

/// What one tenant may have at once; `None` is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quotas {
    /// Commands running.
    pub jails: Option<u64>,
    /// Agents living in workspaces.
    pub agents: Option<u64>,
    pub workspaces: Option<u64>,
    pub sessions: Option<u64>,
    /// Of sealed layers, and of what workspaces hold beyond them.
    pub bytes: Option<u64>,
    /// API requests a second, as an average; twice as many in a burst.
    pub requests_per_second: Option<u32>,
}

impl Default for ExecConfig {
    fn default() -> Self {
        Self {
            default_memory_mb: 512,
            default_timeout_secs: 300,
            max_concurrent: 16,
            max_agents: 32,
            output_limit_bytes: 1024 * 1024,
            first_host_id: jail::default_host_id(),
            enforcement: jail::Enforcement::Required,
            quotas: Quotas::default(),
        }
    }
}

/// Settings of what is kept, as `GET /v1/config` shows them.
#[derive(Debug, Clone, Default)]
pub struct Persistence {
    pub idle_check_secs: u64,
    pub snapshots: SnapshotRetention,
}

/// When snapshots are removed by themselves.
#[derive(Debug, Clone, Copy)]
pub struct SnapshotRetention {
    pub max_age_secs: Option<u64>,
    pub max_count: Option<u64>,
    pub tick_secs: u64,
}

impl Default for SnapshotRetention {
    fn default() -> Self {
        Self { max_age_secs: None, max_count: None, tick_secs: 60 }
    }
}

/// The phantom proxy's URL as jails are told it: scheme, host and port, no path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseUrl {
    pub scheme: Scheme,
    pub host: Host,
    pub port: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    Http,
    /// Something in front of the proxy speaks TLS.
    Https,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    Address(IpAddr),
    Name(egress::HostName),
}

/// Why a string is not a base URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not `http://HOST[:PORT]` or `https://HOST[:PORT]` without a path")]
pub struct BaseUrlError(String);

impl BaseUrl {
    /// The URL of a listener.
    pub fn of_address(address: SocketAddr) -> Self {
        Self { scheme: Scheme::Http, host: Host::Address(address.ip()), port: address.port() }
    }
}

impl FromStr for BaseUrl {
    type Err = BaseUrlError;

    fn from_str(text: &str) -> Result<Self, BaseUrlError> {
        let wrong = || BaseUrlError(text.to_owned());
        let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
        let (scheme, default_port) = match scheme {
            "http" => (Scheme::Http, 80),
            "https" => (Scheme::Https, 443),
            _ => return Err(wrong()),
        };
        let authority: axum::http::uri::Authority = rest.parse().map_err(|_| wrong())?;
        if authority.as_str().contains('@') || authority.as_str().ends_with(':') {
            return Err(wrong());
        }
        let host = authority.host();
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        let host = match bare.parse() {
            Ok(address) => Host::Address(address),
            Err(_) => Host::Name(egress::HostName::parse(bare).map_err(|_| wrong())?),
        };
        let has_port = authority.as_str().len() > authority.host().len();
        let port = if has_port { authority.port_u16().ok_or_else(wrong)? } else { default_port };
        Ok(Self { scheme, host, port })
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, default_port) = match self.scheme {
            Scheme::Http => ("http", 80),
            Scheme::Https => ("https", 443),
        };
        write!(formatter, "{scheme}://")?;
        match &self.host {
            Host::Address(IpAddr::V6(address)) => write!(formatter, "[{address}]")?,
            Host::Address(address) => write!(formatter, "{address}")?,
            Host::Name(name) => write!(formatter, "{name}")?,
        }
        if self.port == default_port { Ok(()) } else { write!(formatter, ":{}", self.port) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_url_reads_back_as_written() {
        for text in [
            "http://127.0.0.1:8443",
            "http://proxy.internal",
            "https://proxy.example.com:9000",
            "http://[::1]:8443",
            "http://10.0.0.5:8443",
        ] {
            assert_eq!(text.parse::<BaseUrl>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_not_a_base_url_is_refused() {
        for text in [
            "",
            "127.0.0.1:8443",
            "ftp://a",
            "http://",
            "http://a/b",
            "http://a/",
            "http://u@a",
            "http://a b",
            "http://a:",
            "http://a:x",
        ] {
            assert!(text.parse::<BaseUrl>().is_err(), "{text}");
        }
    }
}
