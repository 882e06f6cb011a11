//! What wraps every route, once: request id, log line, metrics, error bodies, CORS, authentication.

use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::Method;
use axum::http::header::{
    ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER,
};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use httpkit::{ApiError, Kind, RequestId, with_request_id};
use ids::TenantId;
use serde_json::json;
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::agents;
use crate::app::App;
use crate::caller::{Caller, Role, bearer};

/// Routes that need no key.
pub(crate) const PUBLIC: [&str; 2] = ["/healthz", "/v1/stats"];

/// Puts the layers on, the outermost last.
pub(crate) fn wrap(routes: Router<App>, app: App) -> Router {
    let cors = cors(&app.cors_origins);
    routes
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn_with_state(app.clone(), authenticate))
        .layer(cors)
        .layer(middleware::from_fn_with_state(app.clone(), observe))
        .layer(middleware::from_fn(with_request_id))
        .with_state(app)
}

async fn not_found() -> ApiError {
    ApiError::said(Kind::NotFound, "no such route")
}

async fn method_not_allowed() -> ApiError {
    ApiError::said(Kind::MethodNotAllowed, "this route does not know that method")
}

/// Finds out who asks, before anything of the request is read.
async fn authenticate(State(app): State<App>, mut request: Request, next: Next) -> Response {
    if PUBLIC.contains(&request.uri().path()) {
        return next.run(request).await;
    }
    let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let token = agents::presented(request.headers(), request.uri());
    if let Some(token) = token.filter(|_| route.is_some_and(agents::is_forwarded)) {
        let found = match app.agents.authenticate(token).await {
            Ok(Some(key)) => key,
            Ok(None) => {
                return ApiError::said(Kind::Unauthorized, "invalid agent token").into_response();
            }
            Err(error) => return ApiError::from(error).into_response(),
        };
        if let Err(wait) = app.rates.take(&found.tenant, Instant::now()) {
            return too_many(wait);
        }
        request.extensions_mut().insert(found);
        return next.run(request).await;
    }
    match caller(&app, request.headers()).await {
        Ok(caller) => {
            if let Err(wait) = app.rates.take(&caller.tenant, Instant::now()) {
                return too_many(wait);
            }
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(error) => error.into_response(),
    }
}

/// More requests than the tenant's rate, and after how many seconds to come again.
fn too_many(wait: f64) -> Response {
    let text = "quota of requests: more per second than the tenant may make";
    let mut response = ApiError::said(Kind::TooMany, text).into_response();
    let seconds = format!("{:.0}", wait.ceil().max(1.0));
    if let Ok(seconds) = HeaderValue::from_str(&seconds) {
        response.headers_mut().insert(RETRY_AFTER, seconds);
    }
    response
}

async fn caller(app: &App, headers: &HeaderMap) -> Result<Caller, ApiError> {
    let Some(keys) = &app.keys else {
        return Ok(Caller { tenant: TenantId::dev(), role: Role::Admin });
    };
    let missing = || ApiError::said(Kind::Unauthorized, "missing api key");
    let value = headers.get(AUTHORIZATION).ok_or_else(missing)?.to_str().map_err(|_| missing())?;
    let found = keys.authenticate(bearer(value)).await.map_err(internal)?;
    found.ok_or_else(|| ApiError::said(Kind::Unauthorized, "invalid api key"))
}

/// Counts and logs each request, and writes out the error it carries, if it does.
async fn observe(State(app): State<App>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let method = known_method(request.method());
    let path = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let route = path.unwrap_or_else(|| "unknown".to_owned());
    let id = request.extensions().get::<RequestId>().map(|id| id.0.clone()).unwrap_or_default();
    let response = next.run(request).await;
    let status = response.status();
    let took = began.elapsed();
    app.metrics.request(method, &route, status.as_u16(), took);
    let duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    tracing::debug!(request.id = %id, %method, %route, status = status.as_u16(), duration_ms, "{method} {route} {status}");
    match response.extensions().get::<Arc<ApiError>>().cloned() {
        Some(error) => {
            if error.kind == Kind::Internal {
                tracing::error!(request.id = %id, %method, %route, error = %error.detail(), "request failed");
            }
            write_error(&error, response)
        }
        None => response,
    }
}

/// The original's dialect: one field, and its prefixes for the kinds it has.
fn write_error(error: &ApiError, response: Response) -> Response {
    let text = error.text();
    let text = match error.kind {
        Kind::Invalid => format!("bad request: {text}"),
        Kind::NotFound => format!("not found: {text}"),
        Kind::Conflict => format!("conflict: {text}"),
        Kind::Unauthorized
        | Kind::MethodNotAllowed
        | Kind::Timeout
        | Kind::TooLarge
        | Kind::UnsupportedMedia
        | Kind::TooMany
        | Kind::BadGateway
        | Kind::Unavailable
        | Kind::Internal => text.to_owned(),
    };
    let (mut parts, _) = response.into_parts();
    if error.kind == Kind::TooMany && !parts.headers.contains_key(RETRY_AFTER) {
        parts.headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    // Headers of the empty response it was; `allow` and `x-request-id` stay.
    parts.headers.remove(CONTENT_TYPE);
    parts.headers.remove(axum::http::header::CONTENT_LENGTH);
    let body = axum::Json(json!({ "error": text })).into_response();
    let (body_parts, body) = body.into_parts();
    parts.headers.extend(body_parts.headers);
    Response::from_parts(parts, body)
}

/// A method as a label: one of a few, whatever a client sends.
fn known_method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

fn cors(origins: &[String]) -> CorsLayer {
    let origins = origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok());
    CorsLayer::new()
        .allow_origin(AllowOrigin::list(origins))
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allow_headers([AUTHORIZATION, CONTENT_TYPE, ACCEPT])
        .expose_headers([axum::http::HeaderName::from_static("x-request-id")])
}

/// A status by itself is never an answer of ours: errors are [`ApiError`]s.
impl From<crate::exec::ExecError> for ApiError {
    fn from(error: crate::exec::ExecError) -> Self {
        use crate::exec::flavors::FlavorError;
        use crate::exec::images::ImageError;
        use crate::exec::{AskError, ExecError as E};
        use crate::network::SteerError;
        match &error {
            E::Ask(AskError::Steer(SteerError::Plan(_) | SteerError::LowPort(_))) => {
                Self::new(Kind::Invalid, error)
            }
            E::Ask(AskError::Steer(SteerError::Serve(_)) | AskError::Freeze(_)) => {
                Self::internal(error)
            }
            E::Ended(_) | E::Ask(_) => Self::new(Kind::Conflict, error),
            E::TooMany | E::Quota(_) | E::TooManyAgents | E::AgentQuota(_) => {
                Self::new(Kind::TooMany, error)
            }
            E::Image(ImageError::Unknown(_))
            | E::Plan(_)
            | E::TooLittleMemory
            | E::NoRuntime(..)
            | E::Flavor(FlavorError::Unknown(_)) => Self::new(Kind::Invalid, error),
            E::Image(ImageError::Read(_) | ImageError::About(_))
            | E::Flavor(FlavorError::Read(_))
            | E::Spawn(_)
            | E::Network(_)
            | E::Ledger(_)
            | E::NoHostId
            | E::Layers(_) => Self::internal(error),
            E::Stopped => Self::new(Kind::Unavailable, error),
        }
    }
}

/// The store's failures are the operator's.
pub(crate) fn internal(error: impl Error + Send + Sync + 'static) -> ApiError {
    ApiError::internal(error)
}
