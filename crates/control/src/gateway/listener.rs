//! The gateway's listener: `Host` says which workspace.

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use store::{Store, Target};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::forward::{ForwardError, Forwarder};
use crate::workspaces::Workspaces;

const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

#[derive(Debug, Clone)]
struct Gateway {
    store: Store,
    workspaces: Workspaces,
    forwarder: Forwarder,
}

/// Serves until told to stop.
pub(crate) async fn serve(
    listener: TcpListener,
    store: Store,
    workspaces: Workspaces,
    forwarder: Forwarder,
    stop: CancellationToken,
    grace: std::time::Duration,
) {
    let gateway = Gateway { store, workspaces, forwarder };
    let router = Router::new().fallback(route).with_state(gateway);
    httpkit::serve(listener, router, stop, grace).await;
}

async fn route(State(gateway): State<Gateway>, mut request: Request) -> Response {
    if request.method() == Method::CONNECT {
        return said(StatusCode::METHOD_NOT_ALLOWED, "gateway: bad request: no tunnels here");
    }
    if request.headers().get_all(HOST).iter().count() > 1 {
        return said(StatusCode::BAD_REQUEST, "gateway: bad request: more than one Host header");
    }
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok());
    let host = host.filter(|host| !host.trim().is_empty());
    let authority = request.uri().authority().map(|authority| authority.as_str().to_owned());
    let Some(host) = authority.or_else(|| host.map(str::to_owned)) else {
        return said(StatusCode::BAD_REQUEST, "gateway: bad request: missing Host header");
    };
    let name = name_of(&host);
    let workspace = match gateway.store.workspace_of_domain(&name).await {
        Ok(Some(workspace)) => workspace,
        Ok(None) => {
            let name: String = name.chars().take(253).collect();
            let text = format!("gateway: no workspace declares host {name}");
            return said(StatusCode::NOT_FOUND, &text);
        }
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "the gateway cannot look up");
            return said(StatusCode::INTERNAL_SERVER_ERROR, "gateway: internal server error");
        }
    };
    if let Ok(host) = HeaderValue::from_str(&host) {
        request.headers_mut().insert(FORWARDED_HOST, host);
    }
    let target = workspace.domains.iter().find(|domain| domain.domain == name);
    let Some(target) = target.map(|domain| domain.target.clone()) else {
        return said(StatusCode::NOT_FOUND, "gateway: no workspace declares this host");
    };
    if let Err(error) = gateway.workspaces.wake(&workspace).await {
        tracing::error!(error = &error as &dyn std::error::Error, "a workspace was not woken");
    }
    let answered = match target {
        Target::VmPort(port) => gateway.forwarder.to_port(&workspace.id, port, request).await,
        Target::BackendUrl(url) => gateway.forwarder.to_backend(&url, request).await,
    };
    answered.unwrap_or_else(|error| failed(&error))
}

fn failed(error: &ForwardError) -> Response {
    match error {
        ForwardError::NoJail { .. } | ForwardError::Refused { .. } => {
            let text = format!(
                "gateway: {error}\nstart a workspace exec that binds the port before retrying"
            );
            said(StatusCode::SERVICE_UNAVAILABLE, &text)
        }
        _ => {
            tracing::info!(
                error = error as &dyn std::error::Error,
                "the gateway's other side failed"
            );
            let status = match error {
                ForwardError::Slow => StatusCode::GATEWAY_TIMEOUT,
                _ => StatusCode::BAD_GATEWAY,
            };
            said(status, &format!("gateway: upstream failed: {error}"))
        }
    }
}

/// Lower-cased, without a port.
fn name_of(host: &str) -> String {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    name.trim_end_matches('.').to_ascii_lowercase()
}

fn said(status: StatusCode, text: &str) -> Response {
    let mut response = Response::new(Body::from(format!("{text}\n")));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_its_name() {
        for (host, name) in [
            ("App.Example.com", "app.example.com"),
            ("app.example.com:8080", "app.example.com"),
            ("app.example.com.", "app.example.com"),
        ] {
            assert_eq!(name_of(host), name);
        }
    }
}
