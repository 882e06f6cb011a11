//! Dialling: look up once, check, connect to what was checked.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::address::is_public;
use crate::host::HostName;

/// How long a look-up, and a connection to one address, may take.
const LOOK_UP: Duration = Duration::from_secs(10);
const CONNECT: Duration = Duration::from_secs(10);

/// Addresses of one name that are tried.
const MOST_ADDRESSES: usize = 4;

/// How names are resolved, and which addresses beside public ones may be dialled.
#[derive(Debug, Clone, Default)]
pub struct Dialler {
    /// Names that are not looked up, as curl's `--resolve`.
    pub resolve: HashMap<HostName, Vec<IpAddr>>,
    /// Networks that are not public and may be dialled all the same.
    pub allow_private: Vec<IpNet>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error("no address found for {name}")]
    LookUp { name: HostName, source: io::Error },
    /// The name has addresses, but only ones that lead back to this machine or its neighbours.
    #[error("{host} has no public address")]
    NotPublic { host: String },
    #[error("could not connect to {host}")]
    Connect { host: String, source: io::Error },
}

impl Dialler {
    /// Connects to a name.
    pub async fn dial(&self, name: &HostName, port: u16) -> Result<TcpStream, DialError> {
        let addresses = self.look_up(name).await?;
        self.connect(name.as_str(), &addresses, port).await
    }

    /// Connects to an address that policy allows by itself.
    pub async fn dial_address(&self, address: IpAddr, port: u16) -> Result<TcpStream, DialError> {
        self.connect(&address.to_string(), &[address], port).await
    }

    async fn look_up(&self, name: &HostName) -> Result<Vec<IpAddr>, DialError> {
        if let Some(addresses) = self.resolve.get(name) {
            return Ok(addresses.clone());
        }
        let found = timeout(LOOK_UP, tokio::net::lookup_host((name.as_str(), 0))).await;
        let fail = |source| DialError::LookUp { name: name.clone(), source };
        let found = found.map_err(|_| fail(io::ErrorKind::TimedOut.into()))?.map_err(fail)?;
        Ok(found.map(|address| address.ip()).collect())
    }

    async fn connect(
        &self,
        host: &str,
        addresses: &[IpAddr],
        port: u16,
    ) -> Result<TcpStream, DialError> {
        let mut last = None;
        let allowed = addresses.iter().filter(|address| self.may_dial(**address));
        for address in allowed.take(MOST_ADDRESSES) {
            let attempt = TcpStream::connect(SocketAddr::new(*address, port));
            match timeout(CONNECT, attempt).await {
                Ok(Ok(stream))
                    if self.is_allowed_private(*address) || !leads_back_here(&stream) =>
                {
                    // Small writes are the jail's own choice; we must not hold them back.
                    drop(stream.set_nodelay(true));
                    return Ok(stream);
                }
                Ok(Ok(_)) => {}
                Ok(Err(error)) => last = Some(error),
                Err(_) => last = Some(io::ErrorKind::TimedOut.into()),
            }
        }
        Err(match last {
            None => DialError::NotPublic { host: host.to_owned() },
            Some(source) => DialError::Connect { host: host.to_owned(), source },
        })
    }

    fn may_dial(&self, address: IpAddr) -> bool {
        is_public(address) || self.is_allowed_private(address)
    }

    fn is_allowed_private(&self, address: IpAddr) -> bool {
        let canonical = address.to_canonical();
        self.allow_private.iter().any(|network| network.contains(&canonical))
    }
}

/// Whether the other end is this very machine, under an address that is public: only then does the
/// kernel give both ends the same one.
fn leads_back_here(stream: &TcpStream) -> bool {
    match (stream.local_addr(), stream.peer_addr()) {
        (Ok(local), Ok(peer)) => local.ip() == peer.ip(),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dialler(address: &str, allow: &[&str]) -> Dialler {
        Dialler {
            resolve: [(name(), vec![address.parse().unwrap()])].into(),
            allow_private: allow.iter().map(|network| network.parse().unwrap()).collect(),
        }
    }

    fn name() -> HostName {
        HostName::parse("api.example.com").unwrap()
    }

    #[tokio::test]
    async fn a_name_that_leads_back_here_is_not_dialled() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        for address in ["127.0.0.1", "::ffff:127.0.0.1"] {
            let refused = dialler(address, &["10.0.0.0/8"]).dial(&name(), port).await;
            assert!(matches!(refused, Err(DialError::NotPublic { .. })), "{address}");
        }
        assert!(dialler("127.0.0.1", &["127.0.0.0/8"]).dial(&name(), port).await.is_ok());
    }
}
