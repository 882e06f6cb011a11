//! `/v1/workspaces/{id}/agent/…`: whatever is asked of the agent, passed on as it is: HTTP, event streams, web sockets.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::Method;
use axum::http::header::{
    AUTHORIZATION, COOKIE, HOST, HeaderValue, ORIGIN, REFERER, REFERRER_POLICY,
};
use axum::response::Response;
use httpkit::{ApiError, Kind, Path};

use super::access::{Access, below};
use super::body::Keeping;
use super::door::PORT;
use crate::app::App;
use crate::gateway::{ForwardError, leave_origin};
use crate::openapi::ErrorBody;

/// The routes that an agent's token opens.
pub(crate) const TOP: &str = "/v1/workspaces/{id}/agent/";
pub(crate) const BELOW: &str = "/v1/workspaces/{id}/agent/{*path}";

pub(crate) fn is_forwarded(route: &str) -> bool {
    [TOP, BELOW].contains(&route)
}

/// `ANY /v1/workspaces/{id}/agent/`
pub(crate) async fn forward_top(
    state: State<App>,
    access: Access,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    forward(state, access, Path((id, String::new())), request).await
}

/// `ANY /v1/workspaces/{id}/agent/{path}`
#[utoipa::path(get, path = "/v1/workspaces/{id}/agent/{path}", tag = "agents", params(
    ("id" = String, Path),
    ("path" = String, Path, description = "What the sandbox agent is asked: see its own document"),
), responses(
    (status = 200, description = "What the sandbox agent answers, by any method; streams and upgrades pass. Opened by \
        the agent's token, in `authorization` or as `access_token`, or by a key. It is woken, or started again, if it must be."),
    (status = 400, description = "A parameter of the wrong type; or what the agent answers, a problem document",
        content((ErrorBody = "application/json"), (serde_json::Value = "application/problem+json"))),
    (status = 404, description = "There is no such workspace, or no agent in it; or what the agent answers, a problem document",
        content((ErrorBody = "application/json"), (serde_json::Value = "application/problem+json"))),
    (status = "4XX", description = "What the agent answers, a problem document",
        content((ErrorBody = "application/json"), (serde_json::Value = "application/problem+json"))),
    (status = 502, description = "It does not answer", body = ErrorBody),
))]
pub(crate) async fn forward(
    State(app): State<App>,
    access: Access,
    Path((id, _)): Path<(String, String)>,
    mut request: Request,
) -> Result<Response, ApiError> {
    // What only speaks with a proxy, or shows what a proxy added.
    if [Method::CONNECT, Method::TRACE].contains(request.method()) {
        let text = "CONNECT and TRACE are not passed on";
        return Err(ApiError::said(Kind::MethodNotAllowed, text));
    }
    let entered = match &access {
        Access::Key(key) if key.opens(&id) => app.agents.enter_at_once(&key.workspace),
        Access::Key(_) => return Err(ApiError::said(Kind::NotFound, "workspace")),
        Access::Caller(_) => None,
    };
    let target = below(request.uri().path_and_query(), &id);
    let target = target.and_then(|target| format!("http://127.0.0.1:{PORT}{target}").parse().ok());
    *request.uri_mut() =
        target.ok_or_else(|| ApiError::said(Kind::Invalid, "path: cannot be passed on"))?;
    let (life, held) = match entered {
        Some(entered) => entered,
        None => {
            let workspace = app.workspaces.get(access.sees()?, &id).await?;
            app.agents.enter(&workspace).await?
        }
    };
    // What is for us, or of our origin, is not for what runs in a jail.
    for name in [AUTHORIZATION, COOKIE, ORIGIN, REFERER] {
        request.headers_mut().remove(name);
    }
    let asked = Arc::clone(&life);
    let send = async move |mut request: Request| {
        // After what is between two hops is gone: no client says that this is.
        let headers = request.headers_mut();
        headers.extend(asked.authorization().map(|value| (AUTHORIZATION, value)));
        headers.insert(HOST, HeaderValue::from_static("127.0.0.1"));
        tokio::select! {
            answered = asked.client.request(request) => {
                answered.map_err(|error| ForwardError::Agent(Box::new(error)))
            }
            () = asked.unresponsive() => Err(ForwardError::Hung),
        }
    };
    let mut response = app.forwarder.exchange(request, held.share(), send).await?;
    leave_origin(response.headers_mut());
    // A page's own address may hold the token.
    response.headers_mut().insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    Ok(response.map(|body| Keeping::body(body, held)))
}
