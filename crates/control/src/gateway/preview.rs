//! `/v1/workspaces/{id}/ports/{port}/…`: what a server in a workspace answers, for whoever has a key.

use axum::extract::{Request, State};
use axum::http::header::{
    CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY_REPORT_ONLY, COOKIE, HeaderMap, HeaderName,
    HeaderValue, PROXY_AUTHENTICATE, PUBLIC_KEY_PINS, SET_COOKIE, STRICT_TRANSPORT_SECURITY,
    WWW_AUTHENTICATE,
};
use axum::http::uri::PathAndQuery;
use axum::response::Response;
use httpkit::{ApiError, Kind, Path};

use super::forward::{ForwardError, without_credentials};
use crate::app::App;
use crate::caller::Caller;
use crate::openapi::ErrorBody;

/// Pages of all workspaces would share the API's origin, and with it storage and cookies: each is shut in
/// one of its own.
const SANDBOX: HeaderValue =
    HeaderValue::from_static("sandbox allow-scripts allow-forms allow-modals allow-popups");

/// What speaks for a whole origin, which is the API's and not the page's.
const OF_THE_ORIGIN: [HeaderName; 18] = [
    SET_COOKIE,
    STRICT_TRANSPORT_SECURITY,
    CONTENT_SECURITY_POLICY_REPORT_ONLY,
    PUBLIC_KEY_PINS,
    // A question for a password in the API's name.
    WWW_AUTHENTICATE,
    PROXY_AUTHENTICATE,
    HeaderName::from_static("accept-ch"),
    HeaderName::from_static("alt-svc"),
    HeaderName::from_static("clear-site-data"),
    HeaderName::from_static("critical-ch"),
    HeaderName::from_static("nel"),
    HeaderName::from_static("origin-agent-cluster"),
    HeaderName::from_static("report-to"),
    HeaderName::from_static("reporting-endpoints"),
    HeaderName::from_static("service-worker-allowed"),
    HeaderName::from_static("speculation-rules"),
    HeaderName::from_static("supports-loading-mode"),
    HeaderName::from_static("use-as-dictionary"),
];

/// `ANY /v1/workspaces/{id}/ports/{port}`
pub(crate) async fn preview_top(
    state: State<App>,
    caller: Caller,
    Path((id, port)): Path<(String, String)>,
    request: Request,
) -> Result<Response, ApiError> {
    preview(state, caller, Path((id, port, String::new())), request).await
}

/// `ANY /v1/workspaces/{id}/ports/{port}/{path}`
#[utoipa::path(get, path = "/v1/workspaces/{id}/ports/{port}/{path}", tag = "workspaces", params(
    ("id" = String, Path),
    ("port" = u16, Path, description = "That something in the workspace listens on"),
    ("path" = String, Path, description = "All that follows"),
), responses(
    (status = 200, description = "What the server in the workspace answers, by any method; upgrades pass. \
        The key does not reach it, nor do cookies."),
    (status = 400, description = "Not a port", body = ErrorBody),
    (status = 404, description = "There is no such workspace; or what the server answers", body = ErrorBody),
    (status = 409, description = "Nothing runs in it, or nothing listens there", body = ErrorBody),
))]
pub(crate) async fn preview(
    State(app): State<App>,
    caller: Caller,
    Path((id, port, _)): Path<(String, String, String)>,
    mut request: Request,
) -> Result<Response, ApiError> {
    let port: u16 = port
        .parse()
        .ok()
        .filter(|port| *port > 0)
        .ok_or_else(|| ApiError::said(Kind::Invalid, "port: not a number from 1 to 65535"))?;
    let workspace = app.workspaces.get(caller.sees(None)?, &id).await?;
    app.workspaces.wake(&workspace).await?;
    *request.uri_mut() = below(request.uri().path_and_query(), &id, port)
        .ok_or_else(|| ApiError::said(Kind::Invalid, "path: cannot be passed on"))?;
    without_credentials(request.headers_mut());
    request.headers_mut().remove(COOKIE);
    let mut response = app.forwarder.to_port(&workspace.id, port, request).await?;
    leave_origin(response.headers_mut());
    Ok(response)
}

/// Takes from an answer of a jail whatever would speak for the API's origin, and shuts its pages in one of their own.
pub(crate) fn leave_origin(headers: &mut HeaderMap) {
    for name in OF_THE_ORIGIN {
        headers.remove(name);
    }
    // Who may read the API's answers is not for a workspace to say.
    let shared = |name: &&HeaderName| name.as_str().starts_with("access-control-");
    let shared: Vec<HeaderName> = headers.keys().filter(shared).cloned().collect();
    for name in shared {
        headers.remove(name);
    }
    headers.append(CONTENT_SECURITY_POLICY, SANDBOX);
}

/// What follows the port, as it was sent.
fn below(asked: Option<&PathAndQuery>, id: &str, port: u16) -> Option<axum::http::Uri> {
    let asked = asked?.as_str();
    let rest = asked.split_once(&format!("/{id}/ports/{port}")).map(|(_, rest)| rest)?;
    let rest = if rest.starts_with('/') { rest.to_owned() } else { format!("/{rest}") };
    rest.parse().ok()
}

impl From<ForwardError> for ApiError {
    fn from(error: ForwardError) -> Self {
        match error {
            ForwardError::NoJail { .. } | ForwardError::Refused { .. } => {
                Self::new(Kind::Conflict, error)
            }
            error => Self::new(Kind::BadGateway, error),
        }
    }
}
