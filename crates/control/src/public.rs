//! Routes about the server itself.

use axum::Json;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use httpkit::{ApiError, Kind};
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::caller::Caller;
use crate::edge::internal;

/// Counts over all tenants.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Stats {
    active_execs: usize,
    /// Since the server started.
    total_execs: u64,
    sessions: u64,
    credentials: usize,
}

/// `GET /healthz`
#[utoipa::path(get, path = "/healthz", tag = "public", security(()), responses(
    (status = 200, description = "The server answers", body = String, content_type = "text/plain"),
))]
pub(crate) async fn healthz() -> &'static str {
    "ok"
}

/// `GET /v1/stats`
#[utoipa::path(get, path = "/v1/stats", tag = "public", security(()), responses(
    (status = 200, description = "Counts over all tenants", body = Stats),
))]
pub(crate) async fn stats(State(app): State<App>) -> Result<Json<Stats>, ApiError> {
    Ok(Json(Stats {
        active_execs: app.executor.live().count(),
        total_execs: app.executor.total(),
        sessions: app.store.count_sessions().await.map_err(internal)?,
        credentials: app.proxy.book().count_keys(),
    }))
}

/// `GET /metrics`, for admins: it tells of all tenants.
#[utoipa::path(get, path = "/metrics", tag = "public", responses(
    (status = 200, description = "OpenMetrics text", body = String, content_type = "application/openmetrics-text"),
    (status = 404, description = "Not an admin", body = crate::openapi::ErrorBody),
))]
pub(crate) async fn metrics(
    State(app): State<App>,
    caller: Caller,
) -> Result<impl IntoResponse, ApiError> {
    if !caller.is_admin() {
        return Err(ApiError::said(Kind::NotFound, "no such route"));
    }
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(CONTENT_TYPE, kind)], app.metrics.text()))
}
