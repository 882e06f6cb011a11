//! Passing one request on: to a port of a jail, or to a backend. Bodies stream, upgrades pass.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderMap, HeaderValue,
    TRANSFER_ENCODING, UPGRADE,
};
use axum::http::uri::{PathAndQuery, Scheme};
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use egress::{DialError, Dialler, HostName};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use ids::WorkspaceId;
use phantom::strip_hop_by_hop;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, split};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::exec::AskError;
use crate::workspaces::Live;

/// How long one side of an upgraded connection may go on when the other has ended.
const LINGER: Duration = Duration::from_secs(10);

/// How long the other side may take to begin its answer.
const HEAD: Duration = Duration::from_secs(60);

/// Why a request was not passed on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ForwardError {
    #[error("no live jail for workspace {id} on vm_port {port}")]
    NoJail { id: WorkspaceId, port: u16 },
    #[error(
        "nothing answers on port {port} of workspace {id}: a server there must listen on 127.0.0.1 or 0.0.0.0, and its network mode be loopback or allowlist"
    )]
    Refused {
        id: WorkspaceId,
        port: u16,
        #[source]
        source: AskError,
    },
    #[error("the workspace's agent does not answer")]
    Agent(#[source] Box<hyper_util::client::legacy::Error>),
    #[error("the backend could not be reached")]
    Dial(#[from] DialError),
    #[error("the backend's URL cannot be used")]
    Url,
    #[error("the other side did not answer as HTTP")]
    Http(#[from] hyper::Error),
    #[error("the other side did not answer in time")]
    Slow,
    #[error(
        "the workspace's agent hangs: end it with PATCH {{\"state\": \"ended\"}}; what is asked then starts it again"
    )]
    Hung,
    #[error("the other side changed to a protocol that nobody asked for")]
    Unasked,
    #[error("the other side's TLS could not be trusted")]
    Tls(#[source] std::io::Error),
}

/// Passes requests on. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Forwarder(Arc<ForwarderParts>);

pub(crate) struct ForwarderParts {
    pub(crate) live: Live,
    /// Which backends may be dialled.
    pub(crate) dialler: Dialler,
    pub(crate) tls: TlsConnector,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
}

impl std::fmt::Debug for ForwarderParts {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Forwarder").field("live", &self.live).finish_non_exhaustive()
    }
}

impl Forwarder {
    pub(crate) fn new(parts: ForwarderParts) -> Self {
        Self(Arc::new(parts))
    }

    /// To a port inside the jail that runs over a workspace.
    pub(crate) async fn to_port(
        &self,
        id: &WorkspaceId,
        port: u16,
        mut request: Request,
    ) -> Result<Response, ForwardError> {
        let running = self.0.live.running(id);
        let running = running.ok_or_else(|| ForwardError::NoJail { id: id.clone(), port })?;
        let stream = match running.connect(port).await {
            Ok(stream) => stream,
            Err(AskError::Ended) => return Err(ForwardError::NoJail { id: id.clone(), port }),
            Err(source) => return Err(ForwardError::Refused { id: id.clone(), port, source }),
        };
        drop(stream.set_nodelay(true));
        let host = format!("localhost:{port}");
        let host = HeaderValue::from_str(&host).map_err(|_| ForwardError::Url)?;
        request.headers_mut().insert(HOST, host);
        self.send(stream, request).await
    }

    /// To a backend, below its URL.
    pub(crate) async fn to_backend(
        &self,
        url: &str,
        mut request: Request,
    ) -> Result<Response, ForwardError> {
        let base: Uri = url.parse().map_err(|_| ForwardError::Url)?;
        let secure = base.scheme() == Some(&Scheme::HTTPS);
        let authority = base.authority().ok_or(ForwardError::Url)?;
        let port = authority.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let bare = authority.host().trim_start_matches('[').trim_end_matches(']');
        let stream = if let Ok(address) = bare.parse() {
            self.0.dialler.dial_address(address, port).await?
        } else {
            let name = HostName::parse(bare).map_err(|_| ForwardError::Url)?;
            self.0.dialler.dial(&name, port).await?
        };
        let asked = request.uri().path_and_query().map_or("/", PathAndQuery::as_str);
        let below = format!("{}{asked}", base.path().trim_end_matches('/'));
        *request.uri_mut() = below.parse().map_err(|_| ForwardError::Url)?;
        let host = HeaderValue::from_str(authority.as_str()).map_err(|_| ForwardError::Url)?;
        request.headers_mut().insert(HOST, host);
        if !secure {
            return self.send(stream, request).await;
        }
        let name = rustls::pki_types::ServerName::try_from(bare.to_owned());
        let name = name.map_err(|_| ForwardError::Url)?;
        let stream = timeout(HEAD, self.0.tls.connect(name, stream)).await;
        let stream = stream.map_err(|_| ForwardError::Slow)?.map_err(ForwardError::Tls)?;
        self.send(stream, request).await
    }

    async fn send(
        &self,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        request: Request,
    ) -> Result<Response, ForwardError> {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let stop = self.0.stop.clone();
        self.0.tasks.spawn(async move {
            stop.run_until_cancelled(connection.with_upgrades()).await.map(drop)
        });
        let send = async move |mut request: Request| {
            let origin = request.uri().path_and_query().map_or("/", PathAndQuery::as_str).parse();
            *request.uri_mut() = origin.map_err(|_| ForwardError::Url)?;
            let answered = timeout(HEAD, sender.send_request(request)).await;
            Ok(answered.map_err(|_| ForwardError::Slow)??)
        };
        self.exchange(request, (), send).await
    }

    /// Sends a request and gives its answer, without what is between two hops. If both sides change to another
    /// protocol, what they say is passed on until one ends; `held` is dropped then.
    pub(crate) async fn exchange(
        &self,
        mut request: Request,
        held: impl Send + 'static,
        send: impl AsyncFnOnce(Request) -> Result<hyper::Response<Incoming>, ForwardError>,
    ) -> Result<Response, ForwardError> {
        let upgrade = upgrade_of(request.headers());
        strip_hop_by_hop(request.headers_mut());
        // Framed anew, from the body that is sent.
        request.headers_mut().remove(EXPECT);
        let client = upgrade.as_ref().map(|protocol| {
            request.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
            request.headers_mut().insert(UPGRADE, protocol.clone());
            hyper::upgrade::on(&mut request)
        });
        let mut response = send(request).await?;
        if response.headers().contains_key(TRANSFER_ENCODING) {
            // Which of the two counts, it has said; the next one shall not be asked again.
            response.headers_mut().remove(CONTENT_LENGTH);
        }
        // Ours to the client, whatever the other side speaks.
        *response.version_mut() = axum::http::Version::HTTP_11;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let protocol = response.headers().get(UPGRADE).cloned();
            let server = hyper::upgrade::on(&mut response);
            let client = client.ok_or(ForwardError::Unasked)?;
            let stop = self.0.stop.clone();
            self.0.tasks.spawn(async move {
                stop.run_until_cancelled(relay(client, server)).await;
                drop(held);
            });
            strip_hop_by_hop(response.headers_mut());
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
            response.headers_mut().extend(protocol.map(|protocol| (UPGRADE, protocol)));
        } else {
            strip_hop_by_hop(response.headers_mut());
        }
        Ok(response.map(Body::new))
    }
}

async fn relay(client: hyper::upgrade::OnUpgrade, server: hyper::upgrade::OnUpgrade) {
    // One that breaks off has nobody to be told.
    if let Ok((client, server)) = tokio::try_join!(client, server) {
        let (client, server) = (TokioIo::new(client), TokioIo::new(server));
        let ((from_client, to_client), (from_server, to_server)) = (split(client), split(server));
        let (there, back) = (pass(from_client, to_server), pass(from_server, to_client));
        let (mut there, mut back) = (pin!(there), pin!(back));
        // Whoever has nothing more to say is answered for a while; one that never closes is not kept.
        tokio::select! {
            () = there.as_mut() => drop(timeout(LINGER, back).await),
            () = back.as_mut() => drop(timeout(LINGER, there).await),
        }
    }
}

async fn pass(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
    drop(tokio::io::copy(&mut from, &mut to).await);
    drop(to.shutdown().await);
}

/// The protocol a client wants to change to.
fn upgrade_of(headers: &HeaderMap) -> Option<HeaderValue> {
    let asks = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let asks = asks.flat_map(|value| value.split(','));
    let asks = asks.into_iter().any(|word| word.trim().eq_ignore_ascii_case("upgrade"));
    if asks { headers.get(UPGRADE).cloned() } else { None }
}

/// Takes out what is for us, not for what runs in a jail.
pub(super) fn without_credentials(headers: &mut HeaderMap) {
    headers.remove(AUTHORIZATION);
}
