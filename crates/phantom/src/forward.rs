//! One request, from the decision to the response.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use httpkit::linger::Rests;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, HeaderValue, UPGRADE};
use hyper::{Method, Request, Response, StatusCode, Version};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use mutation::{Protection, keeps};
use store::NewAuditRow;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;

use crate::book::{Grant, Key};
use crate::exchange::{Exchange, Leash, Progress, RequestBody, ResponseBody};
use crate::headers::{asks_for_websocket, prepare_request, strip_hop_by_hop};
use crate::path::{self, UpstreamPath};
use crate::presented;
use crate::provider::Provider;
use crate::serve::{Door, Shared};
use crate::upstream::describe;

pub(crate) type Answer = Response<BoxBody<Bytes, io::Error>>;

/// Why a request is not forwarded. The last word is what the audit row says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    BadPath,
    BadRequest,
    BadMethod,
    NoToken,
    UnknownToken,
    UnknownService,
    WrongService,
    ScopeDenied,
    NoUpstreamKey,
    UpstreamError,
}

impl Refusal {
    fn says(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::BadPath => (StatusCode::NOT_FOUND, "unknown service path", "bad_path"),
            Self::BadRequest => (StatusCode::BAD_REQUEST, "ambiguous request", "bad_request"),
            Self::BadMethod => (StatusCode::METHOD_NOT_ALLOWED, "method not allowed", "bad_method"),
            Self::NoToken => (StatusCode::UNAUTHORIZED, "missing phantom token", "no_token"),
            Self::UnknownToken => {
                (StatusCode::UNAUTHORIZED, "unknown phantom token", "unknown_token")
            }
            Self::UnknownService => (StatusCode::NOT_FOUND, "unknown service", "unknown_service"),
            Self::WrongService => {
                (StatusCode::FORBIDDEN, "token not valid for this service", "wrong_service")
            }
            Self::ScopeDenied => (StatusCode::FORBIDDEN, "path not in scope", "scope_denied"),
            Self::NoUpstreamKey => {
                (StatusCode::BAD_GATEWAY, "upstream key not configured", "no_upstream_key")
            }
            Self::UpstreamError => (StatusCode::BAD_GATEWAY, "upstream failed", "upstream_error"),
        }
    }
}

/// Everything that is known about a request when it is let through.
struct Passed<'a> {
    grant: Arc<Grant>,
    provider: &'a Provider,
    path: UpstreamPath,
    key: Key,
}

/// What is known about a request that is not.
struct Stopped {
    refusal: Refusal,
    grant: Option<Arc<Grant>>,
    path: String,
}

/// Answers one request.
pub(crate) async fn answer(
    shared: &Arc<Shared>,
    door: &Door,
    cut: &CancellationToken,
    rests: &Rests,
    request: Request<Incoming>,
) -> Answer {
    let path = request.uri().path();
    if path == "/healthz" {
        return plain(StatusCode::OK, "ok");
    }
    if !path.starts_with("/v1/") && request.method() != Method::CONNECT {
        return plain(StatusCode::NOT_FOUND, "route not found");
    }
    match decide(shared, door, &request) {
        Ok(passed) => forward(shared, cut, passed, request).await,
        Err(stopped) => {
            let answer = refuse(shared, &request, stopped).await;
            let (parts, body) = request.into_parts();
            rests.take(body, &parts.headers);
            answer
        }
    }
}

fn decide<'a>(
    shared: &'a Shared,
    door: &Door,
    request: &Request<Incoming>,
) -> Result<Passed<'a>, Stopped> {
    let stop = |refusal, grant: Option<&Arc<Grant>>, path: &str| Stopped {
        refusal,
        grant: grant.cloned(),
        path: path.to_owned(),
    };
    let Some((service, rest)) = path::split(request.uri().path()) else {
        return Err(stop(Refusal::BadPath, None, request.uri().path()));
    };
    // Two hosts, or two lengths, are two requests to somebody.
    let several = |name| request.headers().get_all(name).iter().nth(1).is_some();
    if several(HOST) {
        return Err(stop(Refusal::BadRequest, None, rest));
    }
    // One has no path for a scope to be matched with, the other echoes headers, the key among them.
    let dangerous = [Method::CONNECT, Method::TRACE].contains(request.method());
    if dangerous && keeps(Protection::Trace) {
        return Err(stop(Refusal::BadMethod, None, rest));
    }
    let provider = shared.providers.routed(service);
    let injection = provider.map(|provider| &provider.injection);
    let Some(token) = presented::token(request.headers(), injection) else {
        return Err(stop(Refusal::NoToken, None, rest));
    };
    let admits = |grant: &Arc<Grant>| door.admits(grant) || !keeps(Protection::Door);
    let grant = shared.book.grant(&token, Timestamp::now()).filter(admits);
    let Some(grant) = grant else {
        return Err(stop(Refusal::UnknownToken, None, rest));
    };
    let Some(provider) = provider else {
        return Err(stop(Refusal::UnknownService, Some(&grant), rest));
    };
    if grant.service != provider.service {
        return Err(stop(Refusal::WrongService, Some(&grant), rest));
    }
    let Some(path) = UpstreamPath::parse(rest) else {
        return Err(stop(Refusal::BadRequest, Some(&grant), rest));
    };
    if let Some(scopes) = &grant.scopes
        && keeps(Protection::Scopes)
        && !scopes.iter().any(|scope| scope.allows(&path))
    {
        return Err(stop(Refusal::ScopeDenied, Some(&grant), rest));
    }
    let Some(key) = shared.book.key(&grant.key_tenant, &provider.keyed_by) else {
        return Err(stop(Refusal::NoUpstreamKey, Some(&grant), rest));
    };
    Ok(Passed { grant, provider, path, key })
}

async fn refuse(shared: &Shared, request: &Request<Incoming>, stopped: Stopped) -> Answer {
    let (status, text, reason) = stopped.refusal.says();
    let mut row = row(request.method().as_str(), stopped.grant.as_deref(), &stopped.path, status);
    row.reject_reason = Some(reason);
    shared.journal.refuse(row).await;
    plain(status, text)
}

async fn forward(
    shared: &Arc<Shared>,
    cut: &CancellationToken,
    passed: Passed<'_>,
    mut request: Request<Incoming>,
) -> Answer {
    let websocket = asks_for_websocket(request.headers());
    // Before the request is taken apart: the upgrade is a part of it.
    let client = websocket.then(|| hyper::upgrade::on(&mut request));
    // From here on there will be a row, also if the client hangs up before the upstream answers.
    let row = row(request.method().as_str(), Some(&passed.grant), &passed.path.raw, client_gone());
    let exchange = Exchange::new(Arc::clone(shared), row);
    let progress = exchange.progress();
    let outcome = match prepare(shared, &passed, request, websocket, &progress) {
        Ok(request) => send(shared, &passed, request, websocket, &progress).await,
        Err(refusal) => Err(refusal),
    };
    let mut response = match outcome {
        Ok(response) => response,
        Err(refusal) => {
            let (status, text, reason) = refusal.says();
            exchange.decided(status.as_u16(), Some(reason)).await;
            return plain(status, text);
        }
    };
    // Queued before the client sees the response: what it has seen is found.
    exchange.decided(response.status().as_u16(), None).await;
    match client {
        Some(client) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
            let server = hyper::upgrade::on(&mut response);
            let leash = leash(shared, &passed, &progress);
            shared.spawn(join(client, server, exchange, leash));
            switching(response)
        }
        _ => {
            strip_hop_by_hop(response.headers_mut());
            let alive = exchange.alive();
            shared.spawn(watch(leash(shared, &passed, &progress), alive, cut.clone()));
            let leash = leash(shared, &passed, &progress);
            response.map(|body| ResponseBody::new(body, exchange, leash).boxed())
        }
    }
}

/// Cuts a client's connection when its exchange must end. A client that does not read is not asked
/// for, so nothing else would notice.
async fn watch(mut leash: Leash, alive: CancellationToken, cut: CancellationToken) {
    tokio::select! {
        _ = poll_fn(|context| leash.poll_pulled(context)) => cut.cancel(),
        () = alive.cancelled() => {}
    }
}

/// The request as the upstream gets it.
fn prepare(
    shared: &Shared,
    passed: &Passed<'_>,
    request: Request<Incoming>,
    websocket: bool,
    progress: &Arc<Progress>,
) -> Result<Request<RequestBody>, Refusal> {
    let url = passed.provider.url(&passed.path.raw, request.uri().query());
    let key = passed.key.open(shared.book.vault()).map_err(|error| {
        tracing::error!(%error, service = %passed.provider.service, "a stored key does not open");
        Refusal::NoUpstreamKey
    })?;
    let (mut parts, body) = request.into_parts();
    parts.uri = url.map_err(|_| Refusal::BadRequest)?;
    parts.version = Version::HTTP_11;
    prepare_request(&mut parts.headers, passed.provider, &key).map_err(|_| {
        tracing::error!(service = %passed.provider.service, "a stored key cannot stand in a header");
        Refusal::NoUpstreamKey
    })?;
    if websocket {
        parts.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        parts.headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    }
    Ok(Request::from_parts(parts, RequestBody::new(body, Arc::clone(progress))))
}

/// Sends it and waits for the head of the response, as long as nothing is withdrawn meanwhile.
async fn send(
    shared: &Shared,
    passed: &Passed<'_>,
    request: Request<RequestBody>,
    websocket: bool,
    progress: &Arc<Progress>,
) -> Result<Response<Incoming>, Refusal> {
    let client = if websocket { &shared.upstreams.upgrading } else { &shared.upstreams.any };
    let mut leash = leash(shared, passed, progress);
    let pulled = poll_fn(|context| leash.poll_pulled(context));
    let service = &passed.provider.service;
    tokio::select! {
        response = client.request(request) => response.map_err(|error| {
            tracing::warn!(%service, error = describe(&error), "upstream failed");
            Refusal::UpstreamError
        }),
        error = pulled => {
            tracing::info!(%service, %error, "exchange ended before its response");
            Err(Refusal::UpstreamError)
        }
    }
}

fn leash(shared: &Shared, passed: &Passed<'_>, progress: &Arc<Progress>) -> Leash {
    let left = passed
        .grant
        .expires_at
        .map(|end| Duration::try_from(end.duration_since(Timestamp::now())).unwrap_or_default());
    let withdrawn = [&passed.grant.withdrawn, &passed.key.withdrawn];
    Leash::new(withdrawn, left, Arc::clone(progress), shared.silence)
}

/// Passes a 101 back, without what belongs to the connection behind us.
fn switching(response: Response<Incoming>) -> Answer {
    let mut response = response;
    strip_hop_by_hop(response.headers_mut());
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
    response.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
    response.map(|body| body.map_err(crate::upstream::broken).boxed())
}

/// Carries a WebSocket, counted, until either side ends or the leash is pulled.
async fn join(
    client: hyper::upgrade::OnUpgrade,
    server: hyper::upgrade::OnUpgrade,
    exchange: Exchange,
    mut leash: Leash,
) {
    let (Ok(client), Ok(server)) = tokio::join!(client, server) else { return };
    let (from_client, to_client) = tokio::io::split(TokioIo::new(client));
    let (from_server, to_server) = tokio::io::split(TokioIo::new(server));
    let progress = exchange.progress();
    let up = copy(from_client, to_server, |bytes| progress.sent(bytes));
    let down = copy(from_server, to_client, |bytes| progress.received(bytes));
    let both = async { tokio::join!(up, down) };
    tokio::select! {
        _ = both => {}
        _ = poll_fn(|context| leash.poll_pulled(context)) => {}
    }
    drop(exchange);
}

async fn copy(
    mut source: impl AsyncRead + Unpin,
    mut target: impl AsyncWrite + Unpin,
    passed: impl Fn(usize),
) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let length = source.read(&mut buffer).await?;
        if length == 0 {
            return target.shutdown().await;
        }
        passed(length);
        target.write_all(&buffer[..length]).await?;
    }
}

fn row(method: &str, grant: Option<&Grant>, path: &str, status: StatusCode) -> NewAuditRow {
    NewAuditRow {
        at: Timestamp::now(),
        tenant: grant.map(|grant| grant.tenant.clone()),
        session: grant.map(|grant| grant.session.clone()),
        service: grant.map(|grant| grant.service.to_string()).unwrap_or_default(),
        method: method.chars().take(LONGEST_METHOD).collect(),
        path: path.chars().take(LONGEST_PATH).collect(),
        status: status.as_u16(),
        reject_reason: None,
        upstream_ms: None,
    }
}

/// What a row says if the client hung up before the upstream had answered; nginx's number.
fn client_gone() -> StatusCode {
    StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_GATEWAY)
}

/// What an audit row keeps of a client's own words.
const LONGEST_METHOD: usize = 32;
const LONGEST_PATH: usize = 2048;

fn plain(status: StatusCode, text: &'static str) -> Answer {
    let body = Full::new(Bytes::from_static(text.as_bytes())).map_err(|never| match never {});
    let mut response = Response::new(body.boxed());
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
