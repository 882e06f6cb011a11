//! `/v1/acp…`

use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap};
use axum::response::{IntoResponse as _, Response};
use futures_util::StreamExt as _;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use httpkit::{Path, Query};
use serde_json::value::RawValue;

use super::envelope::{Envelope, Kind};
use super::failure::late;
use super::wire::{AgentQuery, ServerList, ServerView};
use crate::app::App;
use crate::events;
use crate::openapi::ProblemBody;
use crate::patience;
use crate::problem::{Code, Problem};

/// Bytes of a message from a client: prompts may have pictures in them.
const LONGEST: usize = 32 * 1024 * 1024;

/// How long a message may take to come: meanwhile others wait for its room.
const BODY_WITHIN: Duration = Duration::from_secs(60);

/// `GET /v1/acp`
#[utoipa::path(get, path = "/v1/acp", tag = "acp", responses(
    (status = 200, description = "The servers there are", body = ServerList),
))]
pub(crate) async fn list(State(app): State<App>) -> Result<axum::Json<ServerList>, Problem> {
    let servers = app.servers.list().await?;
    let view = |server: &std::sync::Arc<super::server::Server>| {
        let agents = match &server.agent {
            Some(agent) => vec![agent.clone()],
            None => server.running().into_iter().map(|(agent, _)| agent).collect(),
        };
        let one = |agent| ServerView {
            server_id: server.id.clone(),
            agent,
            created_at_ms: server.created_ms,
            busy: server.is_busy(),
        };
        agents.into_iter().map(one).collect::<Vec<_>>()
    };
    Ok(axum::Json(ServerList { servers: servers.iter().flat_map(view).collect() }))
}

/// `POST /v1/acp/{server_id}`
#[utoipa::path(post, path = "/v1/acp/{server_id}", tag = "acp",
    params(("server_id" = String, Path), AgentQuery), request_body = Object, responses(
    (status = 200, description = "The answer to a request, failures included. What takes long is kept alive by white space before it",
        body = Object),
    (status = 202, description = "Taken: a notification, or an answer"),
    (status = 404, description = "The agent is not installed", body = ProblemBody),
    (status = 406, description = "`accept` does not allow JSON", body = ProblemBody),
    (status = 409, description = "The server has another agent, or too many run", body = ProblemBody),
    (status = 500, description = "The agent has ended, or could not be installed", body = ProblemBody),
    (status = 502, description = "The agent could not be started", body = ProblemBody),
    (status = 504, description = "The agent did not answer in time", body = ProblemBody),
))]
pub(crate) async fn post(
    State(app): State<App>,
    Path(id): Path<String>,
    Query(query): Query<AgentQuery>,
    request: Request,
) -> Result<Response, Problem> {
    check_headers(request.headers())?;
    let known = app.servers.get(&id).await?;
    let room = match &known {
        Some(server) => server.room(length(request.headers())).await,
        None => None,
    };
    let envelope = read(&text(request.into_body()).await?)?.holding(room);
    if let Some(agent) = &query.agent
        && !crate::agents::is_known(agent)
    {
        return Err(Problem::unsupported_agent(agent));
    }
    if let Some(complaint) = envelope.complaint() {
        return Err(Problem::invalid(complaint));
    }
    let dialect = query.agent.is_none() && envelope.method().as_deref() == Some("initialize");
    if known.is_none() && query.agent.is_none() && !dialect {
        return Err(Problem::invalid(format!(
            "missing required 'agent' query parameter for first POST to /v1/acp/{id}"
        )));
    }
    let server = app.servers.get_or_make(&id, query.agent.as_deref()).await?;
    if envelope.kind() != Kind::Request {
        app.servers.finish(server.post(envelope)).await?;
        return Ok(StatusCode::ACCEPTED.into_response());
    }
    let request_id = envelope.id().map_or_else(|| RawValue::NULL.to_owned(), ToOwned::to_owned);
    let servers = app.servers.clone();
    let id = request_id.clone();
    let work = async move {
        match servers.finish(std::sync::Arc::clone(&server).post(envelope)).await {
            Err(problem) if server.breaks_on_errors() => Ok(Some(late(&id, &problem))),
            done => done,
        }
    };
    patience::answer_or(work, move |problem| late(&request_id, problem)).await
}

/// `GET /v1/acp/{server_id}`
#[utoipa::path(get, path = "/v1/acp/{server_id}", tag = "acp",
    params(("server_id" = String, Path),
        ("last-event-id" = Option<u64>, Header, description = "Go on after this event")), responses(
    (status = 200, description = "Events: `message` with an envelope, `gap` `{from, to}`. One of an unknown server waits for it. With `accept: application/json`: the server",
        body = ServerView),
    (status = 406, description = "`accept` allows neither", body = ProblemBody),
))]
pub(crate) async fn stream(
    State(app): State<App>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let after = events::last_id(&headers)?;
    let server = app.servers.get(&id).await?;
    if !accepts(&headers, "text/event-stream") {
        if !accepts(&headers, "application/json") {
            return Err(Problem::new(Code::NotAcceptable, "accept must allow text/event-stream"));
        }
        let server = server.ok_or_else(|| Problem::session_not_found(&id))?;
        let agent = server.agent.clone().unwrap_or_default();
        let view = ServerView {
            busy: server.is_busy(),
            server_id: id,
            agent,
            created_at_ms: server.created_ms,
        };
        return Ok(axum::Json(view).into_response());
    }
    let frames = match server {
        Some(server) => {
            // Clients of the Python dialect share a server: what others said before is not theirs.
            let from = if server.agent.is_none() { server.feed.latest() } else { 0 };
            server.feed.frames(after.unwrap_or(from)).boxed()
        }
        None => {
            let servers = app.servers.clone();
            let appeared = async move {
                let server = servers.appears(&id).await?;
                Some(server.feed.frames(after.unwrap_or(0)))
            };
            futures_util::stream::once(appeared)
                .filter_map(|frames| async { frames })
                .flatten()
                .boxed()
        }
    };
    Ok(events::response(app.until_stopped(frames)))
}

/// `DELETE /v1/acp/{server_id}`
#[utoipa::path(delete, path = "/v1/acp/{server_id}", tag = "acp", params(("server_id" = String, Path)),
    responses((status = 204, description = "There is none any more; the agent and all it started end")))]
pub(crate) async fn remove(
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    app.servers.remove(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn check_headers(headers: &HeaderMap) -> Result<(), Problem> {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/json") {
        let text = "send the message with `content-type: application/json`";
        return Err(Problem::new(Code::UnsupportedMediaType, text));
    }
    if !accepts(headers, "application/json") {
        return Err(Problem::new(Code::NotAcceptable, "accept must allow application/json"));
    }
    Ok(())
}

fn accepts(headers: &HeaderMap, kind: &str) -> bool {
    let Some(accept) = headers.get(ACCEPT).and_then(|value| value.to_str().ok()) else {
        return true;
    };
    let family = kind.split('/').next().unwrap_or_default();
    accept.split(',').any(|one| {
        let one = one.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        one == kind || one == "*/*" || one == format!("{family}/*")
    })
}

/// Bytes of a body; the most there can be, if it does not say.
fn length(headers: &HeaderMap) -> usize {
    let told = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    told.unwrap_or(LONGEST).min(LONGEST)
}

async fn text(body: Body) -> Result<String, Problem> {
    let read = Limited::new(body, LONGEST).collect();
    let Ok(read) = tokio::time::timeout(BODY_WITHIN, read).await else {
        return Err(Problem::invalid(format!("the body did not come within {BODY_WITHIN:?}")));
    };
    let bytes = match read {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => {
            let text = format!("the message is longer than {LONGEST} bytes");
            return Err(Problem::new(Code::TooLarge, text));
        }
        Err(_) => return Err(Problem::invalid("the body broke off")),
    };
    String::from_utf8(bytes.into())
        .map_err(|_| Problem::invalid("invalid JSON body: it is not UTF-8"))
}

fn read(text: &str) -> Result<Envelope, Problem> {
    match text.trim_start().as_bytes().first() {
        Some(b'{') => Envelope::parse(text)
            .map_err(|error| Problem::invalid(format!("invalid JSON body: {error}"))),
        _ => match serde_json::from_str::<serde::de::IgnoredAny>(text) {
            Ok(_) => Err(Problem::invalid("request body must be a JSON-RPC object")),
            Err(error) => Err(Problem::invalid(format!("invalid JSON body: {error}"))),
        },
    }
}
