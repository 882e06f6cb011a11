//! The OpenAPI document: generated from the handlers, served, and committed as a snapshot.

use axum::Json;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ContentBuilder, Ref, RefOr, Response, ResponseBuilder};
use utoipa::{Modify, OpenApi, ToSchema};

use crate::{acp, agents, desktop, files, health, processes, sandbox, settings};

/// What is wrong (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ProblemBody {
    /// `urn:sandbox-agent:error:<code>`
    #[serde(rename = "type")]
    kind: String,
    title: String,
    status: u16,
    /// What, and what to do about it.
    detail: String,
    /// Members that some problems have: `details`, `agent`, `sessionId`, `errno`.
    #[serde(flatten)]
    #[schema(inline)]
    extra: Map<String, Value>,
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "sandbox agent",
        description = "Files, processes, terminals and coding agents of one sandbox, over HTTP.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    modifiers(&Token, &OperationIds, &CommonAnswers),
    security(("token" = [])),
    paths(
        health::root, health::health, serve,
        files::routes::entries, files::routes::stat, files::routes::read_file,
        files::routes::write_file, files::routes::delete, files::routes::mkdir,
        files::routes::rename, files::routes::upload_tar, files::routes::write_batch,
        files::routes::download_tar, files::routes::watch, files::routes::search,
        processes::routes::get_config, processes::routes::set_config, processes::routes::create,
        processes::routes::run, processes::routes::list, processes::routes::get,
        processes::routes::stop, processes::routes::kill, processes::routes::delete,
        processes::routes::input, processes::routes::logs, processes::routes::resize,
        processes::routes::terminal_socket,
        agents::routes::list, agents::routes::one, agents::routes::install,
        acp::routes::list, acp::routes::post, acp::routes::stream, acp::routes::remove,
        acp::rest::list, acp::rest::one, acp::rest::destroy, acp::rest::events, acp::rest::set_model,
        acp::rest::set_mode, acp::rest::set_thought_level, acp::rest::set_config_option,
        acp::rest::config_options, acp::rest::modes, acp::rest::mcp, acp::rest::set_mcp,
        acp::rest::skills, acp::rest::set_skills,
        settings::routes::get_mcp, settings::routes::put_mcp, settings::routes::delete_mcp,
        settings::routes::get_skills, settings::routes::put_skills, settings::routes::delete_skills,
        settings::routes::delete_all_mcp, settings::routes::delete_all_skills,
        sandbox::pause, sandbox::resume, sandbox::restart, sandbox::kill, sandbox::destroy,
        desktop::status,
    )
)]
struct Document;

struct Token;

impl Modify for Token {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_default();
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        components.add_security_scheme("token", SecurityScheme::Http(bearer));
    }
}

/// A handler's name is that of its verb; an operation's must be the only one of its name.
struct OperationIds;

impl Modify for OperationIds {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        for operation in operations(document) {
            let tag = operation.1.tags.iter().flatten().next();
            if let (Some(tag), Some(id)) = (tag, &operation.1.operation_id) {
                operation.1.operation_id = Some(format!("{tag}_{id}"));
            }
        }
    }
}

fn operations(
    document: &mut utoipa::openapi::OpenApi,
) -> impl Iterator<Item = (&String, &mut utoipa::openapi::path::Operation)> {
    document.paths.paths.iter_mut().flat_map(|(path, item)| {
        let operations =
            [&mut item.get, &mut item.put, &mut item.post, &mut item.patch, &mut item.delete];
        operations.into_iter().flatten().map(move |operation| (path, operation))
    })
}

/// What every operation may answer, said once.
struct CommonAnswers;

impl Modify for CommonAnswers {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        for (path, operation) in operations(document) {
            let mut common = vec![("403", "The host or the origin is not one of this server's")];
            if path.starts_with("/v1") {
                common.push(("401", "No token, or a wrong one"));
            }
            if operation.request_body.is_some() {
                common.push(("400", "What is wrong, by field"));
                common.push(("413", "The body is too long"));
                common.push(("415", "The body is not of the right type"));
                common.push(("504", "The body did not arrive in time"));
            }
            if operation.parameters.as_ref().is_some_and(|parameters| !parameters.is_empty()) {
                common.push(("400", "A parameter of the wrong type, or nothing lies there"));
            }
            if path.contains('{') {
                common.push(("404", "There is none"));
            }
            for (status, description) in common {
                let answers = &mut operation.responses.responses;
                answers.entry(status.to_owned()).or_insert_with(|| error(description).into());
            }
            for answer in operation.responses.responses.values_mut() {
                as_problem(answer);
            }
        }
    }
}

fn error(description: &str) -> Response {
    let body = ContentBuilder::new().schema(Some(Ref::from_schema_name("ProblemBody"))).build();
    ResponseBuilder::new().description(description).content("application/json", body).build()
}

/// Problems have a media type of their own, and a stream has no schema as a whole.
fn as_problem(answer: &mut RefOr<Response>) {
    let RefOr::T(answer) = answer else { return };
    let is_problem = answer.content.get("application/json").is_some_and(|content| {
        let RefOr::T(content) = content else { return false };
        matches!(&content.schema, Some(RefOr::Ref(reference)) if reference.ref_location.ends_with("/ProblemBody"))
    });
    if is_problem && let Some(content) = answer.content.shift_remove("application/json") {
        answer.content.insert("application/problem+json".to_owned(), content);
    }
    for (kind, content) in &mut answer.content {
        let RefOr::T(content) = content else { continue };
        if kind == "text/event-stream" {
            content.schema = None;
        }
    }
}

/// The document.
pub fn document() -> utoipa::openapi::OpenApi {
    Document::openapi()
}

/// `GET /openapi.json`
#[utoipa::path(get, path = "/openapi.json", tag = "health", security(()), responses(
    (status = 200, description = "This document", body = Object),
))]
pub(crate) async fn serve() -> Json<utoipa::openapi::OpenApi> {
    Json(document())
}
