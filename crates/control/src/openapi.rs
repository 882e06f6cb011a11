//! The OpenAPI document: generated from the handlers, served, and committed as a snapshot.

use axum::Json;
use serde::Serialize;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi, ToSchema};

use crate::{
    audit, backup, credentials, gateway, identity, jail_network, jails, keys, public, runs,
    sessions, snapshots, workspaces,
};

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
    modifiers(&ApiKey, &OperationIds),
    security(("api_key" = [])),
    paths(
        public::healthz, public::stats, public::metrics, serve,
        identity::whoami, identity::config, identity::flavors,
        credentials::put, credentials::list, credentials::remove,
        sessions::create, sessions::list, sessions::get, sessions::close, sessions::exec, sessions::run,
        runs::create, runs::stream, runs::fork,
        workspaces::create, workspaces::list, workspaces::get, workspaces::patch, workspaces::delete,
        workspaces::exec, workspaces::exec_stream, workspaces::attach, workspaces::fork, workspaces::from_snapshot,
        workspaces::restore, workspaces::snapshot, gateway::preview,
        snapshots::list, snapshots::get, snapshots::delete, snapshots::manifest, snapshots::diff,
        snapshots::tar, snapshots::verify,
        keys::create, keys::list, keys::revoke, backup::create,
        jails::list, jails::get, jail_network::put,
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

/// A handler's name is that of its verb; an operation's must be the only one of its name.
struct OperationIds;

impl Modify for OperationIds {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        for item in document.paths.paths.values_mut() {
            let operations =
                [&mut item.get, &mut item.put, &mut item.post, &mut item.patch, &mut item.delete];
            for operation in operations.into_iter().flatten() {
                let tag = operation.tags.iter().flatten().next();
                if let (Some(tag), Some(id)) = (tag, &operation.operation_id) {
                    operation.operation_id = Some(format!("{tag}_{id}"));
                }
            }
        }
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
