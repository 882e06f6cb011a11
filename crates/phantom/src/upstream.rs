//! Connections to upstreams: pooled, HTTP/2 where the server speaks it, never through a proxy and
//! never after a redirect.

use std::io;
use std::time::Duration;

use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::{ClientConfig, RootCertStore};

use crate::exchange::RequestBody;

const CONNECT: Duration = Duration::from_secs(10);

/// How long an idle connection is kept, and how many to one host.
const IDLE: Duration = Duration::from_secs(60);
const IDLE_PER_HOST: usize = 64;

pub(crate) type HttpClient = Client<HttpsConnector<HttpConnector>, RequestBody>;

/// Two clients over one TLS configuration.
#[derive(Debug)]
pub(crate) struct Upstreams {
    pub(crate) any: HttpClient,
    /// HTTP/1.1 only: WebSocket needs its upgrade.
    pub(crate) upgrading: HttpClient,
}

/// Why no TLS connection could be made to anyone.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("no trusted certificate could be read from the system's store")]
    NoRoots,
    #[error("the TLS library refused its own defaults")]
    Protocol(#[from] rustls::Error),
}

impl Upstreams {
    pub(crate) fn new() -> Result<Self, TlsError> {
        let tls = client_tls()?;
        let connector = |http2: bool| {
            let mut http = HttpConnector::new();
            http.enforce_http(false);
            http.set_nodelay(true);
            http.set_connect_timeout(Some(CONNECT));
            let builder = HttpsConnectorBuilder::new()
                .with_tls_config(tls.clone())
                .https_or_http()
                .enable_http1();
            if http2 {
                builder.enable_http2().wrap_connector(http)
            } else {
                builder.wrap_connector(http)
            }
        };
        let client = |connector| {
            Client::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .timer(TokioTimer::new())
                .pool_idle_timeout(IDLE)
                .pool_max_idle_per_host(IDLE_PER_HOST)
                .build(connector)
        };
        Ok(Self { any: client(connector(true)), upgrading: client(connector(false)) })
    }
}

/// A TLS client that trusts what the system trusts.
pub fn client_tls() -> Result<ClientConfig, TlsError> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "part of the system's trusted certificates could not be read");
    }
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        // Upstreams over http still work; https ones say what is wrong.
        tracing::warn!("{}", TlsError::NoRoots);
    }
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    Ok(ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

/// Errors of an upstream are logged, not shown: their text names addresses of the operator's.
pub(crate) fn describe(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

pub(crate) fn broken(error: hyper::Error) -> io::Error {
    io::Error::other(error)
}
