//! Streamable HTTP, without sessions: each request has the key that it comes with, and nothing is kept between two.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::tools::Tools;
use crate::client::connection::Connection;

/// A file that is written is the longest message there is.
const LONGEST: usize = 4 << 20;

pub(super) async fn serve(
    connection: Connection,
    address: SocketAddr,
    hosts: Vec<String>,
) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    let mut allowed = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "[::1]".to_owned()];
    allowed.push(address.ip().to_string());
    allowed.extend(hosts);
    let config = StreamableHttpServerConfig::default()
        .with_allowed_hosts(allowed)
        .enforce_origin_validation()
        .with_max_request_body_bytes(LONGEST)
        .with_legacy_session_mode(false)
        .with_cancellation_token(stop.clone());
    let service = StreamableHttpService::new(
        move || Ok(Tools::new(connection.clone())),
        Arc::new(LocalSessionManager::default()),
        config,
    );
    let router =
        Router::new().nest_service("/mcp", service).layer(middleware::from_fn(must_have_a_key));
    let listener = TcpListener::bind(address).await;
    let listener = listener.with_context(|| format!("--http {address}"))?;
    eprintln!("agentjail: MCP at http://{}/mcp", listener.local_addr()?);
    let ended = async move {
        drop(tokio::signal::ctrl_c().await);
        stop.cancel();
    };
    Ok(axum::serve(listener, router).with_graceful_shutdown(ended).await?)
}

/// Whether it is a good one is the control plane's to say, at each call.
async fn must_have_a_key(request: Request, next: Next) -> Response {
    if request.headers().contains_key(AUTHORIZATION) {
        return next.run(request).await;
    }
    let said = "send an API key of the control plane as `Authorization: Bearer`\n";
    (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, "Bearer")], said).into_response()
}
