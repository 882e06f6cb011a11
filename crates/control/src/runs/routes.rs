//! `/v1/runs`

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use httpkit::{ApiError, JsonPair, Kind, Query};
use ids::TenantId;

use super::ground;
use super::stream::frames;
use super::wire::{RunBody, RunRequest, code};
use crate::app::App;
use crate::caller::{Caller, ForTenant};
use crate::exec::{Cut, ExecOptions, ExecResult, Job, Program};
use crate::git::{GitSpec, provenance};
use crate::openapi::ErrorBody;

/// `POST /v1/runs`
#[utoipa::path(post, path = "/v1/runs", tag = "runs", params(ForTenant), request_body = RunBody,
    responses(
    (status = 201, description = "How the code ended", body = ExecResult),
    (status = 400, description = "What is wrong, by field", body = ErrorBody),
    (status = 429, description = "Too many commands at once", body = ErrorBody),
))]
pub(crate) async fn create(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<ForTenant>,
    JsonPair(body, options): JsonPair<RunRequest, ExecOptions>,
) -> Result<(StatusCode, axum::Json<ExecResult>), ApiError> {
    let tenant = query.tenant.as_ref();
    let job = job(&app, &caller, tenant, body, options, store::JailKind::Run).await?;
    Ok((StatusCode::CREATED, axum::Json(app.executor.run(job).await?)))
}

/// `POST /v1/runs/stream`
#[utoipa::path(post, path = "/v1/runs/stream", tag = "runs", params(ForTenant),
    request_body = RunBody, responses(
    (status = 200, description = "Events `started`, `stdout`, `stderr`, `stats`, and last `completed`. \
        The data of `stdout` and `stderr` is the raw line; of the others, JSON.",
        body = String, content_type = "text/event-stream"),
    (status = 400, description = "What is wrong, by field", body = ErrorBody),
    (status = 429, description = "Too many commands at once", body = ErrorBody),
))]
pub(crate) async fn stream(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<ForTenant>,
    JsonPair(body, options): JsonPair<RunRequest, ExecOptions>,
) -> Result<impl IntoResponse, ApiError> {
    let tenant = query.tenant.as_ref();
    let job = job(&app, &caller, tenant, body, options, store::JailKind::Stream).await?;
    Ok(frames(app.executor.stream(job, Cut::Lines).await?))
}

/// From a request to a job.
pub(crate) async fn job(
    app: &App,
    caller: &Caller,
    tenant: Option<&TenantId>,
    body: RunRequest,
    options: ExecOptions,
    kind: store::JailKind,
) -> Result<Job, ApiError> {
    let repositories = body.git.map(GitSpec::repositories).transpose()?.unwrap_or_default();
    let language = body.language.unwrap_or_else(|| "javascript".to_owned());
    let code = code(&language, body.code)?;
    let (session, tenant) = match &body.session_id {
        Some(id) => {
            let (session, tenant) = app.sessions.access(caller.sees(tenant)?, id).await?;
            (Some(session), tenant)
        }
        None => (None, caller.acts_for(tenant)?),
    };
    let settings = options.settings(app.executor.config())?;
    let cloned = ground::cloned(&app.workspaces, &tenant, &repositories, None).await?;
    let program = Program::Code(code.clone());
    let git = provenance(&repositories);
    let mut job = Job { session, git, ..Job::new(tenant, kind, language, program, settings) };
    if cloned.is_some() {
        ground::put_on(&app.workspaces, &mut job, code, cloned.as_ref(), Vec::new()).await?;
    }
    Ok(job)
}

/// No word of a command may hold NUL: it would end there.
pub(crate) fn check_words<'a>(
    field: &str,
    words: impl Iterator<Item = &'a String>,
) -> Result<(), ApiError> {
    for (n, word) in words.enumerate() {
        if word.contains('\0') {
            let field = if n == 0 { field.to_owned() } else { format!("args[{}]", n - 1) };
            return Err(ApiError::said(Kind::Invalid, format!("{field}: holds a NUL character")));
        }
        if n == 0 && word.is_empty() {
            return Err(ApiError::said(Kind::Invalid, format!("{field}: must not be empty")));
        }
    }
    Ok(())
}
