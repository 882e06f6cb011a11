//! `POST /v1/workspaces/{id}/exec/attach`: a command with its input and output as they are, both ways at once.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::StreamExt as _;
use httpkit::{ApiError, Kind, Path, Query};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::timeout;
use utoipa::IntoParams;

use super::routes::{errand, stream};
use super::wire::WorkspaceExec;
use crate::app::App;
use crate::caller::Caller;
use crate::exec::{Cut, Event, Input};
use crate::openapi::ErrorBody;
use crate::runs;

/// Pieces of input that may wait for a command that reads slowly. Then the sender waits.
const QUEUE: usize = 4;

/// How long nothing is said before an empty line says that the command lives.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// What to run: the body is taken by the input.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct AttachQuery {
    /// A `WorkspaceExec` as JSON.
    exec: String,
}

/// `POST /v1/workspaces/{id}/exec/attach`
#[utoipa::path(post, path = "/v1/workspaces/{id}/exec/attach", tag = "workspaces",
    params(("id" = String, Path), AttachQuery),
    request_body(content = Vec<u8>, content_type = "application/octet-stream",
        description = "What the command reads, for as long as it is sent"),
    responses(
    (status = 200, description = "A JSON object a line: `{started: {pid}}`, `{stdout: base64}`, `{stderr: base64}`, \
        `{stats}`, and last `{completed}` or `{error}`", body = String, content_type = "application/x-ndjson"),
    (status = 400, description = "What is wrong, by field", body = ErrorBody),
    (status = 404, description = "There is none", body = ErrorBody),
    (status = 409, description = "Another command runs in it", body = ErrorBody),
    (status = 429, description = "Too many commands at once, or a quota", body = ErrorBody),
))]
pub(crate) async fn attach(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    Query(query): Query<AttachQuery>,
    request: Request,
) -> Result<impl IntoResponse, ApiError> {
    let exec: WorkspaceExec = serde_json::from_str(&query.exec)
        .map_err(|error| ApiError::said(Kind::Invalid, format!("exec: {error}")))?;
    let (pieces, input) = mpsc::channel(QUEUE);
    let errand = errand(&app, &caller, &id, exec, Some(Input::Live(input))).await?;
    let events = stream(&app, errand, Cut::Raw).await?;
    let mut body = request.into_body().into_data_stream();
    // It ends with the body, or when nobody takes any more: the command has ended.
    app.executor.tasks().spawn(async move {
        loop {
            tokio::select! {
                piece = body.next() => {
                    let Some(Ok(piece)) = piece else { return };
                    if pieces.send(piece).await.is_err() {
                        return;
                    }
                }
                () = pieces.closed() => return,
            }
        }
    });
    let lines = futures_util::stream::unfold(events, |mut events| async {
        let line = match timeout(KEEP_ALIVE, events.recv()).await {
            Ok(Some(event)) => format!("{}\n", told(event)),
            Ok(None) => return None,
            Err(_) => "\n".to_owned(),
        };
        Some((Ok::<_, Infallible>(line), events))
    });
    Ok(([(CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)))
}

fn told(event: Event) -> Value {
    match event {
        Event::Started { pid } => json!({ "started": { "pid": pid } }),
        Event::RawStdout(bytes) => json!({ "stdout": STANDARD.encode(bytes) }),
        Event::RawStderr(bytes) => json!({ "stderr": STANDARD.encode(bytes) }),
        Event::Stdout(line) => json!({ "stdout": STANDARD.encode(line) }),
        Event::Stderr(line) => json!({ "stderr": STANDARD.encode(line) }),
        Event::Stats(stats) => json!({ "stats": stats }),
        Event::Completed(result) => json!({ "completed": runs::completed(&result) }),
        Event::Failed { message } => json!({ "error": { "message": message } }),
    }
}
