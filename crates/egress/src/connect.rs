//! An HTTP proxy for tools that insist on one: `CONNECT`, and requests with a whole URL.
//!
//! The same policy as for everybody; nothing needs it.

use std::convert::Infallible;
use std::sync::Arc;

use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::header::{HOST, HeaderValue};
use hyper::http::uri::Authority;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;

use crate::client::Client;
use crate::gate::{Refusal, Rules, Target};
use crate::plain_http;
use crate::plain_http::{Body, Upstream, builder, refused};
use crate::tunnel::{relay_out, tunnel_tls};

/// Serves one connection of the proxy.
pub(crate) async fn serve(rules: Arc<Rules>, stream: Client) {
    let upstream = Arc::new(Upstream::default());
    let service = service_fn(|request: Request<Incoming>| {
        let (rules, upstream) = (Arc::clone(&rules), Arc::clone(&upstream));
        async move {
            let answered = if request.method() == Method::CONNECT {
                tunnel(&rules, request)
            } else {
                whole_url(&rules, &upstream, request).await
            };
            Ok::<_, Infallible>(answered.unwrap_or_else(|refusal| refused(&rules, &refusal)))
        }
    });
    drop(builder().serve_connection(TokioIo::new(stream), service).with_upgrades().await);
}

/// Agrees to a tunnel, and relays once the client has heard so.
fn tunnel(rules: &Arc<Rules>, mut request: Request<Incoming>) -> Result<Response<Body>, Refusal> {
    let asked = request.uri().authority().cloned();
    let asked = asked.filter(|authority| !authority.as_str().contains('@'));
    let Some(asked) = asked else {
        return Err(Refusal::Malformed("a CONNECT without a host"));
    };
    let port = port(&asked, 443)?;
    let target = rules.named(asked.host(), port)?;
    let client = hyper::upgrade::on(&mut request);
    let shared = Arc::clone(rules);
    rules.spawn(async move {
        if let Err(refusal) = run_tunnel(&shared, client, &target, port).await {
            shared.refuse(&refusal, None);
        }
    });
    Ok(Response::new(Empty::new().map_err(|never| match never {}).boxed()))
}

async fn run_tunnel(
    rules: &Arc<Rules>,
    client: OnUpgrade,
    target: &Target,
    port: u16,
) -> Result<(), Refusal> {
    let client = client.await.map_err(std::io::Error::other)?;
    let mut client = TokioIo::new(client);
    match port {
        443 => return tunnel_tls(rules, &mut client, target, port).await,
        80 => {
            plain_http::serve(rules, client, target.clone()).await;
            return Ok(());
        }
        _ => {}
    }
    let upstream = rules.dial(target, port).await?;
    relay_out(client, upstream).await
}

/// The port of an authority. One that was written and is none is not the default.
fn port(authority: &Authority, default: u16) -> Result<u16, Refusal> {
    let written = authority.as_str().rsplit_once(']').map_or(authority.as_str(), |(_, rest)| rest);
    match authority.port_u16() {
        Some(port) => Ok(port),
        None if !written.contains(':') => Ok(default),
        None => Err(Refusal::Malformed("what is asked for is not a port")),
    }
}

/// `GET http://host/path`: the host of the URL counts, and becomes the `Host` header.
async fn whole_url(
    rules: &Rules,
    upstream: &Upstream,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Refusal> {
    let asked = request.uri().authority().cloned();
    let asked = asked.filter(|authority| !authority.as_str().contains('@'));
    let Some(asked) = asked.filter(|_| request.uri().scheme_str() == Some("http")) else {
        return Err(Refusal::Malformed("a request without an http:// URL"));
    };
    let port = port(&asked, 80)?;
    let target = rules.named(asked.host(), port)?;
    let host = HeaderValue::from_str(asked.as_str()).map_err(std::io::Error::other)?;
    request.headers_mut().insert(HOST, host);
    upstream.forward(rules, &target, port, request).await
}
