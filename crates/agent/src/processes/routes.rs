//! `/v1/processes…`

use axum::RequestExt as _;
use axum::body::Body;
use axum::extract::{Request, State, WebSocketUpgrade};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, HeaderMap, USER_AGENT};
use axum::response::{IntoResponse as _, Response};
use httpkit::{Json, Path, Query};
use rustix::process::Signal;

use super::config::{ProcessConfig, ProcessConfigPatch};
use super::error::ProcessError;
use super::logs::{self, Wanted};
use super::service::{Processes, decode};
use super::terminal;
use super::wire::{
    CreateRequest, EndQuery, EndRequest, InputRequest, InputResult, ListQuery, LogsQuery, Owner,
    ProcessInfo, ProcessList, ProcessLogs, RunRequest, RunResult, TerminalQuery, TerminalSize,
};
use crate::app::App;
use crate::events;
use crate::openapi::ProblemBody;
use crate::patience;
use crate::problem::Problem;

/// Bytes of an input's JSON: base64 of the most that can be configured.
const INPUT_BODY: usize = 24 * 1024 * 1024;

/// Bytes of one WebSocket message.
const MESSAGE: usize = 1024 * 1024;

/// `GET /v1/processes/config`
#[utoipa::path(get, path = "/v1/processes/config", tag = "processes", responses(
    (status = 200, description = "The limits in force", body = ProcessConfig),
))]
pub(crate) async fn get_config(State(app): State<App>) -> axum::Json<ProcessConfig> {
    axum::Json(app.processes.config())
}

/// `POST /v1/processes/config`
#[utoipa::path(post, path = "/v1/processes/config", tag = "processes",
    request_body = ProcessConfigPatch, responses(
    (status = 200, description = "The limits from now on", body = ProcessConfig),
))]
pub(crate) async fn set_config(
    State(app): State<App>,
    Json(patch): Json<ProcessConfigPatch>,
) -> Result<axum::Json<ProcessConfig>, Problem> {
    Ok(axum::Json(app.processes.configure(&patch).await?))
}

/// `POST /v1/processes`
#[utoipa::path(post, path = "/v1/processes", tag = "processes", request_body = CreateRequest, responses(
    (status = 200, description = "It runs", body = ProcessInfo),
    (status = 409, description = "As many run as may", body = ProblemBody),
    (status = 502, description = "The kernel refused to start it", body = ProblemBody),
))]
pub(crate) async fn create(
    State(app): State<App>,
    Json(request): Json<CreateRequest>,
) -> Result<axum::Json<ProcessInfo>, Problem> {
    Ok(axum::Json(app.processes.create(request).await?))
}

/// `POST /v1/processes/run`
#[utoipa::path(post, path = "/v1/processes/run", tag = "processes", request_body = RunRequest, responses(
    (status = 200, description = "It has ended. What takes long is kept alive by white space before the JSON",
        body = RunResult),
    (status = 502, description = "The kernel refused to start it", body = ProblemBody),
))]
pub(crate) async fn run(
    State(app): State<App>,
    Json(request): Json<RunRequest>,
) -> Result<Response, Problem> {
    let processes = app.processes.clone();
    patience::answer(async move { Ok(processes.run(request).await?) }).await
}

/// `GET /v1/processes`
#[utoipa::path(get, path = "/v1/processes", tag = "processes", params(ListQuery), responses(
    (status = 200, description = "Oldest first", body = ProcessList),
))]
pub(crate) async fn list(
    State(app): State<App>,
    Query(query): Query<ListQuery>,
) -> axum::Json<ProcessList> {
    let ours = query.owner.is_none_or(|owner| owner == Owner::User);
    axum::Json(ProcessList { processes: if ours { app.processes.list() } else { Vec::new() } })
}

/// `GET /v1/processes/{id}`
#[utoipa::path(get, path = "/v1/processes/{id}", tag = "processes", params(("id" = String, Path)),
    responses((status = 200, description = "The process", body = ProcessInfo)))]
pub(crate) async fn get(
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<axum::Json<ProcessInfo>, Problem> {
    Ok(axum::Json(app.processes.get(&id)?.info()))
}

/// `POST /v1/processes/{id}/stop`
#[utoipa::path(post, path = "/v1/processes/{id}/stop", tag = "processes",
    params(("id" = String, Path), EndQuery), request_body(content = Option<EndRequest>), responses(
    (status = 200, description = "As it is after SIGTERM, to it and all that descends from it", body = ProcessInfo),
))]
pub(crate) async fn stop(
    state: State<App>,
    id: Path<String>,
    query: Query<EndQuery>,
    request: Request,
) -> Result<axum::Json<ProcessInfo>, Problem> {
    end(state, id, query, request, Signal::TERM).await
}

/// `POST /v1/processes/{id}/kill`
#[utoipa::path(post, path = "/v1/processes/{id}/kill", tag = "processes",
    params(("id" = String, Path), EndQuery), request_body(content = Option<EndRequest>), responses(
    (status = 200, description = "As it is after SIGKILL, to it and all that descends from it", body = ProcessInfo),
))]
pub(crate) async fn kill(
    state: State<App>,
    id: Path<String>,
    query: Query<EndQuery>,
    request: Request,
) -> Result<axum::Json<ProcessInfo>, Problem> {
    end(state, id, query, request, Signal::KILL).await
}

async fn end(
    State(app): State<App>,
    Path(id): Path<String>,
    Query(query): Query<EndQuery>,
    request: Request,
    default: Signal,
) -> Result<axum::Json<ProcessInfo>, Problem> {
    let mut signal = query.signal;
    if request.headers().contains_key(CONTENT_TYPE) {
        let Json(body) = request.extract::<Json<EndRequest>, _>().await?;
        signal = signal.or(body.signal.map(|signal| signal.text()));
    }
    Ok(axum::Json(app.processes.end(&id, default, signal.as_deref(), query.wait_ms).await?))
}

/// `DELETE /v1/processes/{id}`
#[utoipa::path(delete, path = "/v1/processes/{id}", tag = "processes", params(("id" = String, Path)),
    responses(
    (status = 204, description = "Forgotten, and its log"),
    (status = 409, description = "It runs", body = ProblemBody),
))]
pub(crate) async fn delete(
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    app.processes.delete(&id)?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /v1/processes/{id}/input`
#[utoipa::path(post, path = "/v1/processes/{id}/input", tag = "processes",
    params(("id" = String, Path)), request_body = InputRequest, responses(
    (status = 200, description = "Written", body = InputResult),
    (status = 409, description = "It has ended", body = ProblemBody),
    (status = 502, description = "It does not read", body = ProblemBody),
))]
pub(crate) async fn input(
    State(app): State<App>,
    Path(id): Path<String>,
    headers: HeaderMap,
    Json(request): Json<InputRequest, INPUT_BODY>,
) -> Result<axum::Json<InputResult>, Problem> {
    // The Python client means text and does not say so.
    let agent = headers.get(USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let data =
        decode(&request.data, request.encoding.as_deref(), agent.starts_with("python-httpx"))?;
    let process = app.processes.get(&id)?;
    let bytes_written = app.processes.input(&process, data, request.eof).await?;
    Ok(axum::Json(InputResult { bytes_written }))
}

/// `GET /v1/processes/{id}/logs`
#[utoipa::path(get, path = "/v1/processes/{id}/logs", tag = "processes",
    params(("id" = String, Path), LogsQuery), responses(
    (status = 200, description = "The entries; with `follow`, events: `log`, `gap` `{from, to}`, `exit` `{exitCode, signal}`",
        body = ProcessLogs),
))]
pub(crate) async fn logs(
    State(app): State<App>,
    Path(id): Path<String>,
    Query(query): Query<LogsQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let process = app.processes.get(&id)?;
    if !query.follow {
        let wanted = Wanted::of(&query, process.tty, None);
        let body: Body = logs::body(process, wanted);
        return Ok(([(CONTENT_TYPE, "application/json")], body).into_response());
    }
    let wanted = Wanted::of(&query, process.tty, events::last_id(&headers)?);
    let frames = logs::follow(process, wanted).await;
    let frames = frames.map_err(|source| ProcessError::Os { what: "read the log", source })?;
    Ok(events::response(app.until_stopped(frames)))
}

/// `POST /v1/processes/{id}/terminal/resize`
#[utoipa::path(post, path = "/v1/processes/{id}/terminal/resize", tag = "processes",
    params(("id" = String, Path)), request_body = TerminalSize, responses(
    (status = 200, description = "The size from now on", body = TerminalSize),
    (status = 409, description = "It has no terminal, or has ended", body = ProblemBody),
))]
pub(crate) async fn resize(
    State(app): State<App>,
    Path(id): Path<String>,
    Json(size): Json<TerminalSize>,
) -> Result<axum::Json<TerminalSize>, Problem> {
    let process = app.processes.get(&id)?;
    Processes::resize(&process, size)?;
    Ok(axum::Json(size))
}

/// `GET /v1/processes/{id}/terminal/ws`
#[utoipa::path(get, path = "/v1/processes/{id}/terminal/ws", tag = "processes",
    params(("id" = String, Path), TerminalQuery), responses(
    (status = 101, description = "A WebSocket: JSON `ready`, `error`, `exit` and binary output; JSON `input`, `resize`, `close` and binary input"),
    (status = 409, description = "It has no terminal", body = ProblemBody),
))]
pub(crate) async fn terminal_socket(
    State(app): State<App>,
    Path(id): Path<String>,
    Query(query): Query<TerminalQuery>,
    request: Request,
) -> Result<Response, Problem> {
    let process = app.processes.get(&id)?;
    if !process.tty {
        return Err(ProcessError::NoTerminal.into());
    }
    let upgrade = request.extract::<WebSocketUpgrade, _>().await;
    let upgrade = upgrade.map_err(|rejection| Problem::invalid(rejection.body_text()))?;
    let (processes, stop, since) =
        (app.processes.clone(), app.stop.clone(), query.since.unwrap_or(0));
    let upgrade = upgrade.max_message_size(MESSAGE).max_frame_size(MESSAGE);
    Ok(upgrade.on_upgrade(move |socket| terminal::serve(processes, process, since, socket, stop)))
}
