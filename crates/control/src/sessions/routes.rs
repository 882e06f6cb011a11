//! `/v1/sessions`

use axum::extract::State;
use axum::http::StatusCode;
use httpkit::{ApiError, Json, JsonPair, Kind, Path, Query};

use super::service::{NewSession, SessionError};
use super::wire::{CreateSession, ExecBody, ExecRequest, SessionView};
use crate::app::App;
use crate::caller::{Caller, ForTenant};
use crate::exec::{ExecOptions, ExecResult, Job, Program};
use crate::openapi::ErrorBody;
use crate::runs::{self, RunBody, RunRequest};

/// `POST /v1/sessions`
#[utoipa::path(post, path = "/v1/sessions", tag = "sessions", params(ForTenant),
    request_body = CreateSession, responses(
    (status = 201, description = "Made", body = SessionView),
    (status = 400, description = "What is wrong, by field", body = ErrorBody),
))]
pub(crate) async fn create(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<ForTenant>,
    Json(body): Json<CreateSession>,
) -> Result<(StatusCode, axum::Json<SessionView>), ApiError> {
    let tenant = caller.acts_for(query.tenant.as_ref())?;
    let named = |name: &String| Ok::<_, ApiError>(app.credentials.service(name)?);
    let new = NewSession {
        services: body.services.iter().map(named).collect::<Result<_, _>>()?,
        ttl_secs: body.ttl_secs,
        scopes: body
            .scopes
            .into_iter()
            .map(|(name, globs)| Ok::<_, ApiError>((named(&name)?, globs)))
            .collect::<Result<_, _>>()?,
    };
    let session = app.sessions.create(tenant, caller.role, new).await?;
    Ok((StatusCode::CREATED, axum::Json(session.into())))
}

/// `GET /v1/sessions`
#[utoipa::path(get, path = "/v1/sessions", tag = "sessions", params(ForTenant), responses(
    (status = 200, description = "Newest first", body = [SessionView]),
))]
pub(crate) async fn list(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<ForTenant>,
) -> Result<axum::Json<Vec<SessionView>>, ApiError> {
    let sessions = app.sessions.list(caller.sees(query.tenant.as_ref())?).await?;
    Ok(axum::Json(sessions.into_iter().map(Into::into).collect()))
}

/// `GET /v1/sessions/{id}`
#[utoipa::path(get, path = "/v1/sessions/{id}", tag = "sessions", params(("id" = String, Path)),
    responses(
    (status = 200, description = "With the same `env` as when it was made", body = SessionView),
    (status = 404, description = "There is none", body = ErrorBody),
))]
pub(crate) async fn get(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<axum::Json<SessionView>, ApiError> {
    Ok(axum::Json(app.sessions.get(caller.sees(None)?, &id).await?.into()))
}

/// `DELETE /v1/sessions/{id}`
#[utoipa::path(delete, path = "/v1/sessions/{id}", tag = "sessions", params(("id" = String, Path)),
    responses(
    (status = 204, description = "Closed; its phantom tokens no longer work"),
    (status = 404, description = "There is none", body = ErrorBody),
))]
pub(crate) async fn close(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    app.sessions.close(caller.sees(None)?, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /v1/sessions/{id}/exec`
#[utoipa::path(post, path = "/v1/sessions/{id}/exec", tag = "sessions",
    params(("id" = String, Path)), request_body = ExecBody, responses(
    (status = 200, description = "How the command ended", body = ExecResult),
    (status = 400, description = "What is wrong, by field", body = ErrorBody),
    (status = 404, description = "There is no such session", body = ErrorBody),
    (status = 429, description = "Too many commands at once", body = ErrorBody),
))]
pub(crate) async fn exec(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    JsonPair(body, options): JsonPair<ExecRequest, ExecOptions>,
) -> Result<axum::Json<ExecResult>, ApiError> {
    let (session, tenant) = app.sessions.access(caller.sees(None)?, &id).await?;
    runs::check_words("cmd", std::iter::once(&body.cmd).chain(&body.args))?;
    let settings = options.settings(app.executor.config())?;
    let label: String = body.cmd.chars().take(256).collect();
    let program = Program::Command { program: body.cmd, arguments: body.args };
    let job = Job::new(tenant, store::JailKind::Exec, label, program, settings);
    Ok(axum::Json(app.executor.run(Job { session: Some(session), ..job }).await?))
}

/// `POST /v1/sessions/{id}/runs`
#[utoipa::path(post, path = "/v1/sessions/{id}/runs", tag = "sessions",
    params(("id" = String, Path)), request_body = RunBody, responses(
    (status = 201, description = "How the code ended", body = ExecResult),
    (status = 400, description = "What is wrong, by field", body = ErrorBody),
    (status = 404, description = "There is no such session", body = ErrorBody),
    (status = 429, description = "Too many commands at once", body = ErrorBody),
))]
pub(crate) async fn run(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    JsonPair(mut body, options): JsonPair<RunRequest, ExecOptions>,
) -> Result<(StatusCode, axum::Json<ExecResult>), ApiError> {
    body.session_id = Some(id);
    let job = runs::job(&app, &caller, None, body, options, store::JailKind::Run).await?;
    Ok((StatusCode::CREATED, axum::Json(app.executor.run(job).await?)))
}

impl From<SessionError> for ApiError {
    fn from(error: SessionError) -> Self {
        match error {
            SessionError::NoServices
            | SessionError::Twice(_)
            | SessionError::NoCredential { .. }
            | SessionError::ScopeElsewhere(_)
            | SessionError::EmptyScope(_)
            | SessionError::TooManyScopes(_)
            | SessionError::BadScope { .. }
            | SessionError::Ttl
            | SessionError::Expired => Self::new(Kind::Invalid, error),
            SessionError::Quota(_) => Self::new(Kind::TooMany, error),
            SessionError::Missing(_) => Self::new(Kind::NotFound, error),
            SessionError::Store(_) | SessionError::Open(_) | SessionError::Environment(_) => {
                Self::internal(error)
            }
        }
    }
}
