//! HTTP without TLS: every request is read, so that every request goes to the host it was allowed
//! for, not only the first of a connection.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self as client, SendRequest};
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING,
    UPGRADE,
};
use hyper::server::conn::http1 as server;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Mutex;

use crate::gate::{Refusal, Rules, Target};
use crate::host::HostName;
use crate::relay;

/// How long a client may take to send a request's head.
const HEAD: Duration = Duration::from_secs(15);

/// Headers that speak of one connection, not of the message.
const HOP_BY_HOP: [&str; 6] = [
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
];

pub(crate) type Body = BoxBody<Bytes, hyper::Error>;

/// The upstream's side of one client connection: opened by the first request, kept for the next.
#[derive(Debug, Default)]
pub(crate) struct Upstream(Mutex<Option<(Target, u16, SendRequest<Incoming>)>>);

/// Serves one connection whose destination is known.
pub(crate) async fn serve(
    rules: &Arc<Rules>,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    target: Target,
) {
    let upstream = Arc::new(Upstream::default());
    let service = service_fn(|request| {
        let (rules, upstream, target) = (Arc::clone(rules), Arc::clone(&upstream), target.clone());
        async move {
            let answered = match agrees(&request, &target) {
                Ok(()) => upstream.forward(&rules, &target, 80, request).await,
                Err(refusal) => Err(refusal),
            };
            Ok::<_, Infallible>(answered.unwrap_or_else(|refusal| refused(&rules, &refusal)))
        }
    });
    let connection = builder().serve_connection(TokioIo::new(stream), service).with_upgrades();
    // A client that breaks off has nobody to be told.
    drop(connection.await);
}

pub(crate) fn builder() -> server::Builder {
    let mut builder = server::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(64 * 1024);
    builder
}

/// Whether a request asks for the host that its connection was opened to.
fn agrees(request: &Request<Incoming>, target: &Target) -> Result<(), Refusal> {
    let Target::Name(name) = target else { return Ok(()) };
    let asked = asked_host(request);
    if asked.as_deref().and_then(|asked| HostName::parse(asked).ok()).as_ref() == Some(name) {
        return Ok(());
    }
    Err(Refusal::OtherName { asked, name: name.clone() })
}

/// The one host a request names, without port; `None` if it names none, or several.
fn asked_host(request: &Request<Incoming>) -> Option<String> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let host: Uri = hosts.next()?.to_str().ok()?.parse().ok()?;
    let host = host.authority()?;
    let same = |uri: &hyper::http::uri::Authority| uri.host().eq_ignore_ascii_case(host.host());
    let agrees = request.uri().authority().is_none_or(same);
    let plain = [host.host(), &format!("{}:80", host.host())].contains(&host.as_str());
    (hosts.next().is_none() && agrees && plain).then(|| host.host().to_owned())
}

impl Upstream {
    /// Sends a request on and gives the answer, as a stream.
    pub(crate) async fn forward(
        &self,
        rules: &Rules,
        target: &Target,
        port: u16,
        mut request: Request<Incoming>,
    ) -> Result<Response<Body>, Refusal> {
        if request.method() == Method::CONNECT {
            return Err(Refusal::Malformed("CONNECT is for the HTTP proxy"));
        }
        let client_upgrade =
            is_upgrade(request.headers()).then(|| hyper::upgrade::on(&mut request));
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        *request.uri_mut() = path.parse().unwrap_or_default();
        clean(request.headers_mut(), client_upgrade.is_some());
        // Set anew from the body that is really sent: no second server reads them otherwise.
        request.headers_mut().remove(CONTENT_LENGTH);
        request.headers_mut().remove(TRANSFER_ENCODING);
        let mut upstream = self.0.lock().await;
        let mut sender = match upstream.take() {
            Some((same, at, sender)) if same == *target && at == port && !sender.is_closed() => {
                sender
            }
            _ => open(rules, target, port).await?,
        };
        let mut response = sender
            .send_request(request)
            .await
            .map_err(|error| Refusal::Broken(std::io::Error::other(error)))?;
        *upstream = Some((target.clone(), port, sender));
        if let Some(client_upgrade) = client_upgrade
            && response.status() == StatusCode::SWITCHING_PROTOCOLS
        {
            let server_upgrade = hyper::upgrade::on(&mut response);
            return Ok(switch(rules, client_upgrade, server_upgrade, response));
        }
        clean(response.headers_mut(), false);
        Ok(response.map(BodyExt::boxed))
    }
}

async fn open(rules: &Rules, target: &Target, port: u16) -> Result<SendRequest<Incoming>, Refusal> {
    let stream = rules.dial(target, port).await?;
    let cut = stream.is_cut();
    let (sender, connection) = client::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| Refusal::Broken(std::io::Error::other(error)))?;
    rules.spawn(async move {
        tokio::select! {
            _ = connection.with_upgrades() => {}
            () = cut => {}
        }
    });
    Ok(sender)
}

/// Passes a 101 back and joins the two connections.
fn switch(
    rules: &Rules,
    client: hyper::upgrade::OnUpgrade,
    server: hyper::upgrade::OnUpgrade,
    response: Response<Incoming>,
) -> Response<Body> {
    rules.spawn(async move {
        if let (Ok(client), Ok(server)) = tokio::join!(client, server) {
            drop(relay::relay(TokioIo::new(client), TokioIo::new(server)).await);
        }
    });
    response.map(BodyExt::boxed)
}

pub(crate) fn refused(rules: &Rules, refusal: &Refusal) -> Response<Body> {
    rules.refuse(refusal, None);
    let status = match refusal {
        Refusal::Dial(_) | Refusal::Broken(_) => StatusCode::BAD_GATEWAY,
        _ => StatusCode::FORBIDDEN,
    };
    let text = format!("agentjail: {refusal}\n");
    let mut response = Response::new(Full::from(text).map_err(|never| match never {}).boxed());
    *response.status_mut() = status;
    response
}

fn is_upgrade(headers: &HeaderMap) -> bool {
    let names = |value: &HeaderValue| {
        value.to_str().is_ok_and(|value| {
            value.split(',').any(|name| name.trim().eq_ignore_ascii_case("upgrade"))
        })
    };
    // Nothing else is let go on in its own protocol: it could name other hosts there.
    let websocket = headers.get(UPGRADE).and_then(|value| value.to_str().ok());
    websocket.is_some_and(|value| value.eq_ignore_ascii_case("websocket"))
        && headers.get_all(CONNECTION).iter().any(names)
}

/// Removes what speaks of one connection only, by name and by `Connection`'s list.
fn clean(headers: &mut HeaderMap, upgrade: bool) {
    let listed: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .filter(|name| *name != HOST && !(upgrade && *name == UPGRADE))
        .collect();
    for name in listed {
        headers.remove(name);
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
    headers.remove(CONNECTION);
    if upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    } else {
        headers.remove(UPGRADE);
    }
}
