//! `/v1/workspaces`

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use futures_util::future::join_all;
use httpkit::{ApiError, Json, JsonPair, Kind, Path, Query};
use ids::TenantId;
use serde::Deserialize;
use store::{JailKind, Page, Whose, Workspace};
use tokio::sync::mpsc::Receiver;
use tokio::sync::oneshot;
use utoipa::IntoParams;

use super::domains;
use super::moments::Family;
use super::occupants::{Errand, NewExec};
use super::service::NewWorkspace;
use super::wire::{
    CreateWorkspace, CreateWorkspaceBody, Fork, ForkWorkspace, Forked, FromSnapshot,
    PatchWorkspace, RestoreWorkspace, TakeSnapshot, WorkspaceExec, WorkspaceList, WorkspaceView,
};
use crate::agents::{self, AgentStarted, StartAgent};
use crate::app::App;
use crate::caller::{Caller, ForTenant};
use crate::edge::internal;
use crate::exec::{Cut, Event, ExecError, ExecOptions, ExecResult, Input};
use crate::git::GitSpec;
use crate::jails::{DEFAULT_LIMIT, MOST_ROWS, capped};
use crate::openapi::ErrorBody;
use crate::runs;
use crate::snapshots::{self, SnapshotView};

/// Longest label, in characters.
const LONGEST_LABEL: usize = 200;

/// Which workspaces are wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct WorkspaceQuery {
    /// Default 50, at most 500.
    limit: Option<u64>,
    offset: Option<u64>,
    /// Found anywhere in id, label or repository, in any case.
    q: Option<String>,
    /// For admins: whose.
    #[param(value_type = Option<String>)]
    tenant: Option<TenantId>,
}

/// `POST /v1/workspaces`
#[utoipa::path(post, path = "/v1/workspaces", tag = "workspaces", params(ForTenant),
    request_body = CreateWorkspaceBody, responses(
    (status = 201, description = "Made", body = WorkspaceView),
    (status = 400, description = "What is wrong, by field; or why a clone failed", body = ErrorBody),
    (status = 404, description = "Another tenant", body = ErrorBody),
    (status = 409, description = "A domain belongs to another workspace", body = ErrorBody),
    (status = 429, description = "A quota, which is named", body = ErrorBody),
))]
pub(crate) async fn create(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<ForTenant>,
    JsonPair(body, options): JsonPair<CreateWorkspace, ExecOptions>,
) -> Result<(StatusCode, axum::Json<WorkspaceView>), ApiError> {
    let tenant = caller.acts_for(query.tenant.as_ref())?;
    check_label(body.label.as_deref())?;
    let new = NewWorkspace {
        tenant,
        label: body.label,
        repositories: body.git.map(GitSpec::repositories).transpose()?.unwrap_or_default(),
        idle_timeout_secs: body.idle_timeout_secs.unwrap_or_default(),
        domains: domains::checked(body.domains.unwrap_or_default())?,
        settings: options.settings(app.executor.config())?,
    };
    let workspace = app.workspaces.create(new).await?;
    Ok((StatusCode::CREATED, axum::Json(view(&app, &caller, workspace))))
}

/// `GET /v1/workspaces`
#[utoipa::path(get, path = "/v1/workspaces", tag = "workspaces", params(WorkspaceQuery), responses(
    (status = 200, description = "Newest first", body = WorkspaceList),
    (status = 400, description = "A parameter of the wrong type", body = ErrorBody),
    (status = 404, description = "Another tenant", body = ErrorBody),
))]
pub(crate) async fn list(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<WorkspaceQuery>,
) -> Result<axum::Json<WorkspaceList>, ApiError> {
    let page = Page {
        limit: capped(query.limit, DEFAULT_LIMIT, MOST_ROWS),
        offset: query.offset.unwrap_or_default(),
    };
    let text = query.q.as_deref().map(str::trim).filter(|q| !q.is_empty());
    let whose = caller.sees(query.tenant.as_ref())?;
    let listed = app.store.workspaces(whose, text, page).await.map_err(internal)?;
    let rows = listed.rows.into_iter().map(|row| view(&app, &caller, row)).collect();
    let (limit, offset) = (page.limit, page.offset);
    Ok(axum::Json(WorkspaceList { rows, total: listed.total, limit, offset }))
}

/// `GET /v1/workspaces/{id}`
#[utoipa::path(get, path = "/v1/workspaces/{id}", tag = "workspaces", params(("id" = String, Path)),
    responses(
    (status = 200, description = "The workspace", body = WorkspaceView),
    (status = 404, description = "There is none", body = ErrorBody),
))]
pub(crate) async fn get(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<axum::Json<WorkspaceView>, ApiError> {
    let workspace = app.workspaces.get(caller.sees(None)?, &id).await?;
    Ok(axum::Json(view(&app, &caller, workspace)))
}

/// `PATCH /v1/workspaces/{id}`
#[utoipa::path(patch, path = "/v1/workspaces/{id}", tag = "workspaces",
    params(("id" = String, Path)), request_body = PatchWorkspace, responses(
    (status = 200, description = "As it is now", body = WorkspaceView),
    (status = 400, description = "What is wrong, by field", body = ErrorBody),
    (status = 404, description = "There is none", body = ErrorBody),
))]
pub(crate) async fn patch(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    Json(body): Json<PatchWorkspace>,
) -> Result<axum::Json<WorkspaceView>, ApiError> {
    check_label(body.label.as_deref())?;
    let whose = caller.sees(None)?;
    let workspace = app.workspaces.rename(whose, &id, body.label.as_deref()).await?;
    Ok(axum::Json(view(&app, &caller, workspace)))
}

/// `DELETE /v1/workspaces/{id}`
#[utoipa::path(delete, path = "/v1/workspaces/{id}", tag = "workspaces",
    params(("id" = String, Path)), responses(
    (status = 204, description = "Gone, with what ran in it; its snapshots stay"),
    (status = 404, description = "There is none", body = ErrorBody),
))]
pub(crate) async fn delete(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let whose = caller.sees(None)?;
    let workspace = app.workspaces.get(whose, &id).await?;
    app.agents.end_if_any(&workspace.id).await?;
    app.workspaces.delete(whose, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /v1/workspaces/{id}/exec`
#[utoipa::path(post, path = "/v1/workspaces/{id}/exec", tag = "workspaces",
    params(("id" = String, Path)), request_body = WorkspaceExec, responses(
    (status = 200, description = "How the command ended", body = ExecResult),
    (status = 400, description = "What is wrong, by field", body = ErrorBody),
    (status = 404, description = "There is none", body = ErrorBody),
    (status = 409, description = "Another command runs in it", body = ErrorBody),
    (status = 429, description = "Too many commands at once, or a quota", body = ErrorBody),
))]
pub(crate) async fn exec(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    Json(body): Json<WorkspaceExec>,
) -> Result<axum::Json<ExecResult>, ApiError> {
    Ok(axum::Json(match errand(&app, &caller, &id, body, None).await? {
        Errand::Alone(job) => app.executor.run(*job).await?,
        Errand::Beside(guest) => app.executor.run_guest(*guest).await?,
    }))
}

/// `POST /v1/workspaces/{id}/exec/stream`
#[utoipa::path(post, path = "/v1/workspaces/{id}/exec/stream", tag = "workspaces",
    params(("id" = String, Path)), request_body = WorkspaceExec, responses(
    (status = 200, description = "Events as of a streamed run", body = String,
        content_type = "text/event-stream"),
    (status = 400, description = "What is wrong, by field", body = ErrorBody),
    (status = 404, description = "There is none", body = ErrorBody),
    (status = 409, description = "Another command runs in it", body = ErrorBody),
    (status = 429, description = "Too many commands at once, or a quota", body = ErrorBody),
))]
pub(crate) async fn exec_stream(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    Json(body): Json<WorkspaceExec>,
) -> Result<impl IntoResponse, ApiError> {
    let errand = errand(&app, &caller, &id, body, None).await?;
    Ok(runs::frames(stream(&app, errand, Cut::Lines).await?))
}

/// `POST /v1/workspaces/{id}/fork`
#[utoipa::path(post, path = "/v1/workspaces/{id}/fork", tag = "workspaces",
    params(("id" = String, Path)), request_body = ForkWorkspace, responses(
    (status = 201, description = "The forks, which begin as the workspace is", body = Forked),
    (status = 400, description = "What is wrong, by field", body = ErrorBody),
    (status = 404, description = "There is none", body = ErrorBody),
    (status = 409, description = "The command that runs cannot be frozen", body = ErrorBody),
    (status = 429, description = "A quota, which is named", body = ErrorBody),
    (status = 502, description = "An agent did not come up: there are no forks", body = ErrorBody),
))]
pub(crate) async fn fork(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
    Json(body): Json<ForkWorkspace>,
) -> Result<(StatusCode, axum::Json<Forked>), ApiError> {
    check_label(body.label.as_deref())?;
    let whose = caller.sees(None)?;
    let Some(asked) = body.agent else {
        let family = app.workspaces.fork(whose, &id, body.count, body.label.as_deref()).await?;
        let agents = family.forks.iter().map(|_| None).collect();
        let forked = forked(&app, &caller, family, agents);
        return Ok((StatusCode::CREATED, axum::Json(forked)));
    };
    let workspace = app.workspaces.get(whose, &id).await?;
    let agent = asked.over(app.agents.settings(&workspace.id).await?.unwrap_or_default())?;
    // To its end, whoever hangs up; and of what nobody hears of, nothing stays: its tokens would be lost.
    let (told, hear) = oneshot::channel();
    let (this, whom) = (app.clone(), caller.clone());
    app.executor.tasks().spawn(async move {
        let number = (body.count, body.label);
        let done = fork_inhabited(&this, &whom, &headers, &workspace, agent, number).await;
        if let Err(Ok((family, _))) = told.send(done) {
            undo(&this, &family).await;
        }
    });
    let (family, agents) = hear.await.map_err(|_| ApiError::from(ExecError::Stopped))??;
    Ok((StatusCode::CREATED, axum::Json(forked(&app, &caller, family, agents))))
}

/// Forks with an agent each: all of what was asked for, or nothing.
async fn fork_inhabited(
    app: &App,
    caller: &Caller,
    headers: &HeaderMap,
    workspace: &Workspace,
    agent: StartAgent,
    (count, label): (u64, Option<String>),
) -> Result<(Family, Vec<Option<AgentStarted>>), ApiError> {
    let whose = caller.sees(None)?;
    let family = app.workspaces.fork(whose, workspace.id.as_str(), count, label.as_deref()).await?;
    let begun = family
        .forks
        .iter()
        .map(|fork| agents::begin(app, caller, headers, fork.clone(), agent.clone()));
    let begun: Result<Vec<_>, ApiError> = join_all(begun).await.into_iter().collect();
    match begun {
        Ok(begun) => Ok((family, begun.into_iter().map(Some).collect())),
        Err(error) => {
            undo(app, &family).await;
            Err(error)
        }
    }
}

/// Takes back what a fork has made. What does not go is told, and does not keep the rest.
async fn undo(app: &App, family: &Family) {
    let tell = |error: ApiError| tracing::error!(error = %error.detail(), "a fork was not undone");
    for fork in &family.forks {
        if let Err(error) = app.agents.end_if_any(&fork.id).await {
            tell(error.into());
        }
        if let Err(error) = app.workspaces.delete(Whose::Everyone, fork.id.as_str()).await {
            tell(error.into());
        }
    }
    if let Err(error) = app.store.delete_snapshot(Whose::Everyone, &family.snapshot.id).await {
        tell(internal(error));
    }
    app.workspaces.collect_later();
}

fn forked(app: &App, caller: &Caller, family: Family, agents: Vec<Option<AgentStarted>>) -> Forked {
    let Family { parent, forks, snapshot, freeze } = family;
    let shown = |(workspace, agent)| Fork { workspace: view(app, caller, workspace), agent };
    Forked {
        parent: view(app, caller, parent),
        forks: forks.into_iter().zip(agents).map(shown).collect(),
        snapshot_id: snapshot.id.into(),
        freeze_ms: freeze.map(|freeze| freeze.as_secs_f64() * 1000.0),
    }
}

/// `POST /v1/workspaces/from-snapshot`
#[utoipa::path(post, path = "/v1/workspaces/from-snapshot", tag = "workspaces",
    request_body = FromSnapshot, responses(
    (status = 201, description = "A workspace that begins as the snapshot is", body = WorkspaceView),
    (status = 400, description = "What is wrong, by field", body = ErrorBody),
    (status = 404, description = "No such snapshot, or not of that workspace", body = ErrorBody),
    (status = 429, description = "A quota, which is named", body = ErrorBody),
))]
pub(crate) async fn from_snapshot(
    State(app): State<App>,
    caller: Caller,
    Json(body): Json<FromSnapshot>,
) -> Result<(StatusCode, axum::Json<WorkspaceView>), ApiError> {
    check_label(body.label.as_deref())?;
    let made = app.workspaces.create_from(
        caller.sees(None)?,
        &body.snapshot_id,
        &body.parent_workspace_id,
        body.label.as_deref(),
    );
    let made = made.await?;
    Ok((StatusCode::CREATED, axum::Json(view(&app, &caller, made))))
}

/// `POST /v1/workspaces/{id}/restore`
#[utoipa::path(post, path = "/v1/workspaces/{id}/restore", tag = "workspaces",
    params(("id" = String, Path)), request_body = RestoreWorkspace, responses(
    (status = 200, description = "The workspace, as the snapshot is", body = WorkspaceView),
    (status = 400, description = "What is wrong, by field", body = ErrorBody),
    (status = 404, description = "No such workspace, or no such snapshot of it", body = ErrorBody),
    (status = 409, description = "A command runs in it", body = ErrorBody),
))]
pub(crate) async fn restore(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    Json(body): Json<RestoreWorkspace>,
) -> Result<axum::Json<WorkspaceView>, ApiError> {
    let restored = app.workspaces.restore(caller.sees(None)?, &id, &body.snapshot_id).await?;
    Ok(axum::Json(view(&app, &caller, restored)))
}

/// `POST /v1/workspaces/{id}/snapshot`
#[utoipa::path(post, path = "/v1/workspaces/{id}/snapshot", tag = "workspaces",
    params(("id" = String, Path)), request_body = TakeSnapshot, responses(
    (status = 201, description = "Taken; a running command stood still meanwhile", body = SnapshotView),
    (status = 400, description = "What is wrong, by field", body = ErrorBody),
    (status = 404, description = "There is none", body = ErrorBody),
    (status = 409, description = "The command that runs cannot be frozen", body = ErrorBody),
    (status = 429, description = "A quota, which is named", body = ErrorBody),
))]
pub(crate) async fn snapshot(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    Json(body): Json<TakeSnapshot>,
) -> Result<(StatusCode, axum::Json<SnapshotView>), ApiError> {
    check_words_of("name", body.name.as_deref())?;
    let (taken, freeze) = app.workspaces.snapshot(caller.sees(None)?, &id, body.name).await?;
    let view = snapshots::view(&app, &caller, taken, freeze).await?;
    Ok((StatusCode::CREATED, axum::Json(view)))
}

/// What happens on an errand, as it happens.
pub(super) async fn stream(
    app: &App,
    errand: Errand,
    cut: Cut,
) -> Result<Receiver<Event>, ApiError> {
    Ok(match errand {
        Errand::Alone(job) => app.executor.stream(*job, cut).await?,
        Errand::Beside(guest) => app.executor.stream_guest(*guest, cut).await?,
    })
}

pub(super) async fn errand(
    app: &App,
    caller: &Caller,
    id: &str,
    body: WorkspaceExec,
    input: Option<Input>,
) -> Result<Errand, ApiError> {
    let whose = caller.sees(None)?;
    let workspace = app.workspaces.get(whose, id).await?;
    runs::check_words("cmd", std::iter::once(&body.cmd).chain(&body.args))?;
    check_environment(&body.env)?;
    let session = match &body.session_id {
        None => None,
        Some(session) => {
            let (access, tenant) = app.sessions.access(whose, session).await?;
            if tenant != workspace.tenant {
                let text = format!("session_id: {session} is of another tenant than the workspace");
                return Err(ApiError::said(Kind::Invalid, text));
            }
            Some(access)
        }
    };
    let new = NewExec {
        program: body.cmd,
        arguments: body.args,
        timeout_secs: body.timeout_secs,
        memory_mb: body.memory_mb,
        environment: body.env,
        session,
        stdin: input.or(body.stdin.map(Input::Text)),
    };
    Ok(app.workspaces.errand(&workspace, new, JailKind::Workspace).await?)
}

/// Names that a program could not read back as they were sent are refused.
fn check_environment(variables: &[(String, String)]) -> Result<(), ApiError> {
    for (n, (name, value)) in variables.iter().enumerate() {
        if name.is_empty() || name.contains(['=', '\0']) {
            let text = format!("env[{n}]: a name is not empty and holds neither `=` nor NUL");
            return Err(ApiError::said(Kind::Invalid, text));
        }
        if value.contains('\0') {
            return Err(ApiError::said(Kind::Invalid, format!("env[{n}]: the value holds NUL")));
        }
    }
    Ok(())
}

fn check_label(label: Option<&str>) -> Result<(), ApiError> {
    check_words_of("label", label)
}

/// What people call things: one line, and not a page.
fn check_words_of(field: &str, text: Option<&str>) -> Result<(), ApiError> {
    match text {
        Some(label) if label.chars().count() > LONGEST_LABEL => {
            let text = format!("{field}: at most {LONGEST_LABEL} characters");
            Err(ApiError::said(Kind::Invalid, text))
        }
        Some(label) if label.chars().any(char::is_control) => {
            Err(ApiError::said(Kind::Invalid, format!("{field}: no control characters")))
        }
        _ => Ok(()),
    }
}

fn view(app: &App, caller: &Caller, workspace: Workspace) -> WorkspaceView {
    let trees = app.workspaces.layers().trees();
    let directory = |half: &str| {
        if caller.is_admin() {
            trees.files(&workspace.upper).join(half).display().to_string()
        } else {
            String::new()
        }
    };
    let time = |time: Option<jiff::Timestamp>| time.map(|time| time.to_string());
    WorkspaceView {
        source_dir: directory("workspace"),
        output_dir: directory("output"),
        id: workspace.id.into(),
        tenant_id: workspace.tenant.into(),
        created_at: workspace.created_at.to_string(),
        deleted_at: time(workspace.deleted_at),
        config: workspace.config,
        git_repo: workspace.git_repo,
        git_ref: workspace.git_ref,
        label: workspace.label,
        domains: workspace.domains.into_iter().map(Into::into).collect(),
        last_exec_at: time(workspace.last_exec_at),
        paused_at: time(workspace.paused_at),
        auto_snapshot: workspace.auto_snapshot.map(Into::into),
    }
}
