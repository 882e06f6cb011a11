//! The OpenAPI document: generated from the handlers, served, and committed as a snapshot.

use axum::Json;
use serde::Serialize;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi, ToSchema};

use crate::{audit, credentials, identity, jails, public, runs, sessions};

/// An error's body.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ErrorBody {
    /// What is wrong, and with which field.
    error: String,
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "agentjail control plane",
        description = "Run coding agents and untrusted code in jails that never hold a real key.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    modifiers(&ApiKey),
    security(("api_key" = [])),
    paths(
        public::healthz, public::stats, public::metrics, serve,
        identity::whoami, identity::config, identity::flavors,
        credentials::put, credentials::list, credentials::remove,
        sessions::create, sessions::list, sessions::get, sessions::close, sessions::exec, sessions::run,
        runs::create, runs::stream,
        jails::list, jails::get, jails::put_network,
        audit::list,
    )
)]
struct Document;

struct ApiKey;

impl Modify for ApiKey {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_default();
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        components.add_security_scheme("api_key", SecurityScheme::Http(bearer));
    }
}

/// The document.
pub fn document() -> utoipa::openapi::OpenApi {
    Document::openapi()
}

/// `GET /openapi.json`
#[utoipa::path(get, path = "/openapi.json", tag = "public", responses(
    (status = 200, description = "This document", body = Object),
))]
pub(crate) async fn serve() -> Json<utoipa::openapi::OpenApi> {
    Json(document())
}
