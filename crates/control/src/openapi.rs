//! The OpenAPI document: generated from the handlers, served, and committed as a snapshot.

use axum::Json;
use serde::Serialize;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ContentBuilder, Ref, RefOr, Response, ResponseBuilder};
use utoipa::{Modify, OpenApi, ToSchema};

use crate::{
    agents, audit, backup, credentials, edge, gateway, identity, jail_network, jails, keys, public,
    runs, sessions, snapshots, workspaces,
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
    modifiers(&ApiKey, &OperationIds, &CommonAnswers),
    security(("api_key" = [])),
    paths(
        public::healthz, public::stats, public::metrics, serve,
        identity::whoami, identity::config, identity::flavors, identity::images,
        credentials::put, credentials::list, credentials::remove,
        sessions::create, sessions::list, sessions::get, sessions::close, sessions::exec, sessions::run,
        runs::create, runs::stream, runs::fork,
        workspaces::create, workspaces::list, workspaces::get, workspaces::patch, workspaces::delete,
        workspaces::exec, workspaces::exec_stream, workspaces::attach, workspaces::fork, workspaces::from_snapshot,
        workspaces::restore, workspaces::snapshot, gateway::preview,
        agents::start, agents::get, agents::patch, agents::end, agents::forward,
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

/// What every operation may answer, said once.
struct CommonAnswers;

impl Modify for CommonAnswers {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        for (path, item) in &mut document.paths.paths {
            let public = edge::PUBLIC.contains(&path.as_str());
            let operations =
                [&mut item.get, &mut item.put, &mut item.post, &mut item.patch, &mut item.delete];
            for operation in operations.into_iter().flatten() {
                let mut common = Vec::new();
                if !public {
                    common.push(("401", "No key, or one that is unknown"));
                    common.push(("429", "More requests than the tenant's rate"));
                }
                if operation.request_body.is_some() {
                    common.push(("400", "What is wrong, by field"));
                    common.push(("408", "The body did not arrive in time"));
                    common.push(("413", "The body is longer than 1 MiB"));
                    common.push(("415", "The body is not JSON"));
                    common.push(("503", "The server stops, and what was asked with it"));
                }
                if operation.parameters.as_ref().is_some_and(|parameters| !parameters.is_empty()) {
                    common.push(("400", "A parameter of the wrong type"));
                    common.push(("404", "There is none, or not in sight"));
                }
                for (status, description) in common {
                    let answers = &mut operation.responses.responses;
                    answers.entry(status.to_owned()).or_insert_with(|| error(description).into());
                }
                for answer in operation.responses.responses.values_mut() {
                    drop_schemas_of_streams(answer);
                }
            }
        }
    }
}

fn error(description: &str) -> Response {
    let body = ContentBuilder::new().schema(Some(Ref::from_schema_name("ErrorBody"))).build();
    ResponseBuilder::new().description(description).content("application/json", body).build()
}

/// A stream has no schema as a whole.
fn drop_schemas_of_streams(answer: &mut RefOr<Response>) {
    let RefOr::T(answer) = answer else { return };
    for (kind, content) in &mut answer.content {
        let RefOr::T(content) = content else { continue };
        if kind == "text/event-stream" || kind == "application/x-ndjson" {
            content.schema = None;
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
