//! Who this is, and that it lives.

use axum::Json;
use serde::Serialize;
use utoipa::ToSchema;

/// Who answers.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct About {
    name: &'static str,
    docs: &'static str,
}

/// That it lives.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Health {
    /// `ok`
    status: &'static str,
}

/// `GET /`
#[utoipa::path(get, path = "/", tag = "health", security(()), responses(
    (status = 200, description = "Who answers", body = About),
))]
pub(crate) async fn root() -> Json<About> {
    Json(About { name: "Sandbox Agent", docs: "/openapi.json" })
}

/// `GET /v1/health`
#[utoipa::path(get, path = "/v1/health", tag = "health", responses(
    (status = 200, description = "It lives", body = Health),
))]
pub(crate) async fn health() -> Json<Health> {
    Json(Health { status: "ok" })
}
