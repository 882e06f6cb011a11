//! `/v1/workspaces/{id}/agent`

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{HOST, HeaderMap, HeaderName};
use httpkit::{ApiError, Json, Path};
use store::Workspace;

use super::error::AgentError;
use super::service::{Begun, NewAgent};
use super::wire::{AgentStarted, AgentState, AgentView, PatchAgent, StartAgent};
use crate::app::App;
use crate::caller::Caller;
use crate::openapi::ErrorBody;
use crate::sessions::NewSession;

const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// `POST /v1/workspaces/{id}/agent`
#[utoipa::path(post, path = "/v1/workspaces/{id}/agent", tag = "agents",
    params(("id" = String, Path)), request_body = StartAgent, responses(
    (status = 201, description = "A sandbox agent answers in the workspace's jail", body = AgentStarted),
    (status = 400, description = "What is wrong, by field", body = ErrorBody),
    (status = 404, description = "There is no such workspace, or session", body = ErrorBody),
    (status = 409, description = "It has an agent, or a command runs in it", body = ErrorBody),
    (status = 429, description = "Too many commands at once, or a quota", body = ErrorBody),
    (status = 502, description = "It ended at once, or does not answer", body = ErrorBody),
))]
pub(crate) async fn start(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
    Json(body): Json<StartAgent>,
) -> Result<(StatusCode, axum::Json<AgentStarted>), ApiError> {
    let workspace = app.workspaces.get(caller.sees(None)?, &id).await?;
    let started = begin(&app, &caller, &headers, workspace, body).await?;
    Ok((StatusCode::CREATED, axum::Json(started)))
}

/// Starts an agent in a workspace that the caller sees.
pub(crate) async fn begin(
    app: &App,
    caller: &Caller,
    headers: &HeaderMap,
    workspace: Workspace,
    body: StartAgent,
) -> Result<AgentStarted, ApiError> {
    body.check()?;
    let (mut session, mut new_session) = (None, None);
    match (&body.session_id, &body.services) {
        (Some(_), Some(_)) => return Err(AgentError::TwoSessions.into()),
        (Some(named), None) => {
            session = Some(app.agents.shared_session(caller.sees(None)?, named, &workspace).await?);
        }
        (None, Some(services)) => {
            let known = |name: &String| Ok::<_, ApiError>(app.credentials.service(name)?);
            let scopes = body.scopes.iter();
            let new = NewSession {
                services: services.iter().map(known).collect::<Result<_, _>>()?,
                ttl_secs: None,
                scopes: scopes
                    .map(|(name, globs)| Ok::<_, ApiError>((known(name)?, globs.clone())))
                    .collect::<Result<_, _>>()?,
            };
            new_session = Some((caller.role, new));
        }
        (None, None) if !body.scopes.is_empty() => return Err(AgentError::ScopesAlone.into()),
        (None, None) => {}
    }
    let url = url(headers, &workspace);
    let Begun { token, session } =
        app.agents.start(NewAgent { workspace, body, session, new_session }).await?;
    let token = token.expose().to_owned();
    Ok(AgentStarted { url, token, session_id: session.map(Into::into) })
}

/// `GET /v1/workspaces/{id}/agent`
#[utoipa::path(get, path = "/v1/workspaces/{id}/agent", tag = "agents",
    params(("id" = String, Path)), responses(
    (status = 200, description = "How it is", body = AgentView),
    (status = 404, description = "There is no such workspace, or it has no agent", body = ErrorBody),
))]
pub(crate) async fn get(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<axum::Json<AgentView>, ApiError> {
    let workspace = app.workspaces.get(caller.sees(None)?, &id).await?;
    Ok(axum::Json(view(&app, &headers, &workspace).await?))
}

/// `PATCH /v1/workspaces/{id}/agent`
#[utoipa::path(patch, path = "/v1/workspaces/{id}/agent", tag = "agents",
    params(("id" = String, Path)), request_body = PatchAgent, responses(
    (status = 200, description = "As it is now: paused, running or ended. Its token and its session stay", body = AgentView),
    (status = 400, description = "What is wrong, by field", body = ErrorBody),
    (status = 404, description = "There is no such workspace, or it has no agent", body = ErrorBody),
    (status = 409, description = "It cannot be paused while a command runs beside it", body = ErrorBody),
    (status = 429, description = "Too many commands at once, or a quota", body = ErrorBody),
    (status = 502, description = "It ended at once, or does not answer", body = ErrorBody),
))]
pub(crate) async fn patch(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
    Json(body): Json<PatchAgent>,
) -> Result<axum::Json<AgentView>, ApiError> {
    let workspace = app.workspaces.get(caller.sees(None)?, &id).await?;
    app.agents.set_state(&workspace, body.state).await?;
    Ok(axum::Json(view(&app, &headers, &workspace).await?))
}

async fn view(
    app: &App,
    headers: &HeaderMap,
    workspace: &Workspace,
) -> Result<AgentView, ApiError> {
    let found = app.agents.get(workspace).await?;
    let life = found.life.filter(|life| !life.has_ended());
    Ok(AgentView {
        state: match &life {
            Some(life) if life.is_paused() => AgentState::Paused,
            Some(_) => AgentState::Running,
            None => AgentState::Ended,
        },
        url: url(headers, workspace),
        session_id: found.row.session.map(Into::into),
        created_at: found.row.created_at.to_string(),
        agents: found.body.agents.unwrap_or_default(),
        jail_id: life.map(|life| life.jail),
        ended: found.row.ended,
    })
}

/// `DELETE /v1/workspaces/{id}/agent`
#[utoipa::path(delete, path = "/v1/workspaces/{id}/agent", tag = "agents",
    params(("id" = String, Path)), responses(
    (status = 204, description = "Ended, with all that ran beside it; the workspace stays"),
    (status = 404, description = "There is no such workspace, or it has no agent", body = ErrorBody),
))]
pub(crate) async fn end(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let workspace = app.workspaces.get(caller.sees(None)?, &id).await?;
    app.agents.end(&workspace.id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Where the agent of a workspace is, as whoever asks has reached us.
fn url(headers: &HeaderMap, workspace: &Workspace) -> String {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let scheme = text(FORWARDED_PROTO).filter(|scheme| *scheme == "https").unwrap_or("http");
    let host = text(HOST).unwrap_or("localhost");
    format!("{scheme}://{host}/v1/workspaces/{}/agent", workspace.id)
}
