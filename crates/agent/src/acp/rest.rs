//! `/v1/sessions…`: sessions as records, and what can be set of them.

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use httpkit::{Json, Path, Query};
use serde_json::{Value, json};

use super::dialect;
use super::journal::{EventRow, SessionRow};
use super::server::Server;
use super::wire::{
    ConfigOptionRequest, EventList, ModeRequest, ModelRequest, PageQuery, SessionEvent,
    SessionList, SessionRecord, ThoughtLevelRequest,
};
use crate::app::App;
use crate::openapi::ProblemBody;
use crate::problem::{Code, Problem};
use crate::settings::Settings;

const DEFAULT_PAGE: u64 = 50;
const LONGEST_PAGE: u64 = 500;

pub(crate) fn routes() -> Router<App> {
    Router::new()
        .route("/", get(list))
        .route("/{id}", get(one).delete(destroy))
        .route("/{id}/events", get(events))
        .route("/{id}/model", post(set_model))
        .route("/{id}/mode", post(set_mode))
        .route("/{id}/thought-level", post(set_thought_level))
        .route("/{id}/config-options", get(config_options).post(set_config_option))
        .route("/{id}/modes", get(modes))
        .route("/{id}/mcp/config", get(mcp).put(set_mcp))
        .route("/{id}/skills/config", get(skills).put(set_skills))
}

/// A session as it is told.
pub(super) fn record(row: &SessionRow) -> Value {
    let read =
        |text: &Option<String>| text.as_deref().and_then(|text| serde_json::from_str(text).ok());
    let record = SessionRecord {
        id: row.id.clone(),
        agent: row.agent.clone(),
        agent_session_id: row.id.clone(),
        last_connection_id: row.connection.clone(),
        created_at: row.created_s,
        destroyed_at: row.destroyed_s,
        session_init: read(&row.init),
        config_options: read(&row.config_options),
        modes: read(&row.modes),
    };
    serde_json::to_value(record).unwrap_or_default()
}

fn page(query: &PageQuery) -> (u64, u64, u64) {
    let page = query.page.unwrap_or(1).max(1);
    let per_page = query.per_page.unwrap_or(DEFAULT_PAGE).clamp(1, LONGEST_PAGE);
    let skip = (page - 1).saturating_mul(per_page).min(i64::MAX as u64);
    (page, per_page, skip)
}

/// `GET /v1/sessions`
#[utoipa::path(get, path = "/v1/sessions", tag = "sessions", params(PageQuery), responses(
    (status = 200, description = "Newest first", body = SessionList),
))]
pub(crate) async fn list(
    State(app): State<App>,
    Query(query): Query<PageQuery>,
) -> Result<axum::Json<SessionList>, Problem> {
    let (page, per_page, skip) = page(&query);
    let journal = &app.servers.context().await?.journal;
    let (rows, total) = journal.sessions(skip, per_page).await?;
    let sessions = rows.iter().map(record).collect();
    Ok(axum::Json(SessionList { sessions, page, per_page, total }))
}

/// `GET /v1/sessions/{id}`
#[utoipa::path(get, path = "/v1/sessions/{id}", tag = "sessions", params(("id" = String, Path)),
    responses((status = 200, description = "The session", body = SessionRecord)))]
pub(crate) async fn one(
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<axum::Json<Value>, Problem> {
    Ok(axum::Json(record(&find(&app, &id).await?)))
}

/// `DELETE /v1/sessions/{id}`
#[utoipa::path(delete, path = "/v1/sessions/{id}", tag = "sessions", params(("id" = String, Path)),
    responses((status = 204, description = "Destroyed: what it does is cancelled, what was said stays on record")))]
pub(crate) async fn destroy(
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let mut row = exact(&app, &id).await?;
    if let Some(server) = app.servers.by_key(row.server).await? {
        let cancel = json!({ "sessionId": row.id });
        let cancel = super::envelope::Envelope::notification("session/cancel", &cancel);
        for process in server.alive() {
            if process.has_open(&row.id) {
                // One that does not read is not cancelled, and not waited for.
                drop(process.notify(cancel.clone()).await);
            }
        }
    }
    row.destroyed_s = row.destroyed_s.or(Some(crate::wire::now_ms() / 1000));
    app.servers.context().await?.journal.put_session(row).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /v1/sessions/{id}/events`
#[utoipa::path(get, path = "/v1/sessions/{id}/events", tag = "sessions",
    params(("id" = String, Path), PageQuery), responses(
    (status = 200, description = "What was said, oldest first", body = EventList),
))]
pub(crate) async fn events(
    State(app): State<App>,
    Path(id): Path<String>,
    Query(query): Query<PageQuery>,
) -> Result<axum::Json<EventList>, Problem> {
    let row = find(&app, &id).await?;
    let (page, per_page, skip) = page(&query);
    let journal = &app.servers.context().await?.journal;
    let (rows, total) = journal.events(row.id.clone(), skip, per_page).await?;
    let events = rows.into_iter().map(|event| told(&row, event)).collect();
    Ok(axum::Json(EventList { events, page, per_page, total }))
}

fn told(session: &SessionRow, event: EventRow) -> SessionEvent {
    SessionEvent {
        id: format!("{}-{}", event.server, event.number),
        event_index: event.number,
        session_id: session.id.clone(),
        created_at: event.at_ms,
        connection_id: session.connection.clone(),
        sender: if event.sent.is_some() { "agent" } else { "client" },
        payload: serde_json::from_str(&event.payload).unwrap_or_default(),
    }
}

/// `POST /v1/sessions/{id}/model`
#[utoipa::path(post, path = "/v1/sessions/{id}/model", tag = "sessions", params(("id" = String, Path)),
    request_body = ModelRequest, responses(
    (status = 200, description = "The session from now on", body = SessionRecord),
    (status = 500, description = "The agent has ended", body = ProblemBody),
    (status = 502, description = "The agent refused", body = ProblemBody),
))]
pub(crate) async fn set_model(
    State(app): State<App>,
    Path(id): Path<String>,
    Json(body): Json<ModelRequest>,
) -> Result<axum::Json<Value>, Problem> {
    set(&app, &id, Setting::Category("model", &body.model)).await
}

/// `POST /v1/sessions/{id}/mode`
#[utoipa::path(post, path = "/v1/sessions/{id}/mode", tag = "sessions", params(("id" = String, Path)),
    request_body = ModeRequest, responses(
    (status = 200, description = "The session from now on", body = SessionRecord),
    (status = 500, description = "The agent has ended", body = ProblemBody),
    (status = 502, description = "The agent refused", body = ProblemBody),
))]
pub(crate) async fn set_mode(
    State(app): State<App>,
    Path(id): Path<String>,
    Json(body): Json<ModeRequest>,
) -> Result<axum::Json<Value>, Problem> {
    set(&app, &id, Setting::Mode(&body.mode)).await
}

/// `POST /v1/sessions/{id}/thought-level`
#[utoipa::path(post, path = "/v1/sessions/{id}/thought-level", tag = "sessions",
    params(("id" = String, Path)), request_body = ThoughtLevelRequest, responses(
    (status = 200, description = "The session from now on", body = SessionRecord),
    (status = 500, description = "The agent has ended", body = ProblemBody),
    (status = 502, description = "The agent refused", body = ProblemBody),
))]
pub(crate) async fn set_thought_level(
    State(app): State<App>,
    Path(id): Path<String>,
    Json(body): Json<ThoughtLevelRequest>,
) -> Result<axum::Json<Value>, Problem> {
    set(&app, &id, Setting::Category("thought_level", &body.thought_level)).await
}

/// `POST /v1/sessions/{id}/config-options`
#[utoipa::path(post, path = "/v1/sessions/{id}/config-options", tag = "sessions",
    params(("id" = String, Path)), request_body = ConfigOptionRequest, responses(
    (status = 200, description = "The session from now on", body = SessionRecord),
    (status = 500, description = "The agent has ended", body = ProblemBody),
    (status = 502, description = "The agent refused", body = ProblemBody),
))]
pub(crate) async fn set_config_option(
    State(app): State<App>,
    Path(id): Path<String>,
    Json(body): Json<ConfigOptionRequest>,
) -> Result<axum::Json<Value>, Problem> {
    set(&app, &id, Setting::Option(&body.config_id, &body.value)).await
}

/// `GET /v1/sessions/{id}/config-options`
#[utoipa::path(get, path = "/v1/sessions/{id}/config-options", tag = "sessions",
    params(("id" = String, Path)),
    responses((status = 200, description = "What can be set", body = Vec<Object>)))]
pub(crate) async fn config_options(
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<axum::Json<Value>, Problem> {
    Ok(axum::Json(parsed(find(&app, &id).await?.config_options.as_deref())))
}

/// `GET /v1/sessions/{id}/modes`
#[utoipa::path(get, path = "/v1/sessions/{id}/modes", tag = "sessions", params(("id" = String, Path)),
    responses((status = 200, description = "The modes there are", body = Vec<Object>)))]
pub(crate) async fn modes(
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<axum::Json<Value>, Problem> {
    let modes = parsed(find(&app, &id).await?.modes.as_deref());
    let available = &modes["availableModes"];
    Ok(axum::Json(if available.is_array() { available.clone() } else { json!([]) }))
}

/// `GET /v1/sessions/{id}/mcp/config`
#[utoipa::path(get, path = "/v1/sessions/{id}/mcp/config", tag = "sessions", params(("id" = String, Path)),
    responses((status = 200, description = "The servers for tools of this session alone", body = Object)))]
pub(crate) async fn mcp(
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<axum::Json<Value>, Problem> {
    Ok(axum::Json(own(&app, &id).await?.0))
}

/// `PUT /v1/sessions/{id}/mcp/config`
#[utoipa::path(put, path = "/v1/sessions/{id}/mcp/config", tag = "sessions", params(("id" = String, Path)),
    request_body = Object, responses((status = 204, description = "In force with the session's next turn, if its agent can load it again")))]
pub(crate) async fn set_mcp(
    State(app): State<App>,
    Path(id): Path<String>,
    Json(body): Json<Value>,
) -> Result<StatusCode, Problem> {
    find(&app, &id).await?;
    set_own(&app, &id, Some(Settings::checked_mcp(body)?), None).await
}

/// `GET /v1/sessions/{id}/skills/config`
#[utoipa::path(get, path = "/v1/sessions/{id}/skills/config", tag = "sessions", params(("id" = String, Path)),
    responses((status = 200, description = "The skills of this session alone", body = Object)))]
pub(crate) async fn skills(
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<axum::Json<Value>, Problem> {
    Ok(axum::Json(own(&app, &id).await?.1))
}

/// `PUT /v1/sessions/{id}/skills/config`
#[utoipa::path(put, path = "/v1/sessions/{id}/skills/config", tag = "sessions", params(("id" = String, Path)),
    request_body = Object, responses((status = 204, description = "In force with the session's next turn, if its agent can load it again")))]
pub(crate) async fn set_skills(
    State(app): State<App>,
    Path(id): Path<String>,
    Json(body): Json<Value>,
) -> Result<StatusCode, Problem> {
    find(&app, &id).await?;
    set_own(&app, &id, None, Some(Settings::checked_skills(body)?)).await
}

/// What is configured for a session alone: servers for tools, and skills.
async fn own(app: &App, id: &str) -> Result<(Value, Value), Problem> {
    let row = find(app, id).await?;
    let (mcp, skills) = app.servers.context().await?.journal.own_settings(row.id).await?;
    let read = |text: Option<String>| text.and_then(|text| serde_json::from_str(&text).ok());
    Ok((read(mcp).unwrap_or_else(|| json!({})), read(skills).unwrap_or_else(|| json!({}))))
}

async fn set_own(
    app: &App,
    id: &str,
    mcp: Option<Value>,
    skills: Option<Value>,
) -> Result<StatusCode, Problem> {
    let row = find(app, id).await?;
    let text = |value: Option<Value>| value.map(|value| value.to_string());
    let journal = &app.servers.context().await?.journal;
    journal.set_own_settings(row.id.clone(), text(mcp), text(skills)).await?;
    // Its agent hears of it when the session is loaded again, which its next turn does.
    if let Some(server) = app.servers.by_key(row.server).await? {
        server.alive().iter().for_each(|process| process.to_be_loaded_again(&row.id));
    }
    Ok(StatusCode::NO_CONTENT)
}

fn parsed(text: Option<&str>) -> Value {
    text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_else(|| json!([]))
}

/// A session by its id, or by the name that a client gave it.
async fn exact(app: &App, id: &str) -> Result<SessionRow, Problem> {
    let journal = &app.servers.context().await?.journal;
    let found = journal.session(id.to_owned()).await?;
    found.ok_or_else(|| Problem::session_not_found(id))
}

/// The same, where a UUID that nobody knows is what the Python client calls the newest session: it names its sessions
/// by itself, and tells the name only here. From now on that is its name.
async fn find(app: &App, id: &str) -> Result<SessionRow, Problem> {
    match exact(app, id).await {
        Err(_) if is_uuid(id) => find_or_name(app, id).await,
        found => found,
    }
}

fn is_uuid(id: &str) -> bool {
    let parts: Vec<usize> = id.split('-').map(str::len).collect();
    parts == [8, 4, 4, 4, 12] && id.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit())
}

/// The same with any name. To set something, the client may use one that its user made up.
async fn find_or_name(app: &App, id: &str) -> Result<SessionRow, Problem> {
    let journal = &app.servers.context().await?.journal;
    let found = match journal.session(id.to_owned()).await? {
        Some(row) => Some(row),
        None => journal.name_the_newest(id.to_owned()).await?,
    };
    found.ok_or_else(|| Problem::session_not_found(id))
}

/// What to set.
enum Setting<'a> {
    Mode(&'a str),
    /// The option of a category.
    Category(&'static str, &'a str),
    Option(&'a str, &'a Value),
}

async fn set(app: &App, id: &str, setting: Setting<'_>) -> Result<axum::Json<Value>, Problem> {
    let row = find_or_name(app, id).await?;
    let server = app.servers.by_key(row.server).await?;
    let server = server.ok_or_else(|| Problem::conflict("the session's server has been ended"))?;
    let (method, params) = ask(&row, &setting)?;
    match dialect::passed(&server, method, params).await? {
        Ok(_) => {}
        Err(error) => {
            let text = error["message"].as_str().unwrap_or("the agent refused").to_owned();
            return Err(Problem::new(Code::StreamError, text).with("error", error));
        }
    }
    remember(&server, &row, &setting).await?;
    Ok(axum::Json(record(&find(app, &row.id).await?)))
}

/// The agent's own method for a setting, once the value is one that it knows.
fn ask(row: &SessionRow, setting: &Setting<'_>) -> Result<(&'static str, Value), Problem> {
    let options = parsed(row.config_options.as_deref());
    let options = options.as_array().map(Vec::as_slice).unwrap_or_default();
    let option =
        |id: &str, value: &Value| json!({ "sessionId": row.id, "configId": id, "value": value });
    match setting {
        Setting::Option(id, value) => {
            let known: Vec<&Value> = options.iter().map(|option| &option["id"]).collect();
            let found = options.iter().find(|option| option["id"] == *id);
            let found = found.ok_or_else(|| refused("option", id, &known))?;
            check(found, value)?;
            Ok(("session/set_config_option", option(id, value)))
        }
        Setting::Mode(mode) => {
            let modes = parsed(row.modes.as_deref());
            let known: Vec<&Value> = modes["availableModes"]
                .as_array()
                .map(|modes| modes.iter().map(|mode| &mode["id"]).collect())
                .unwrap_or_default();
            if known.iter().any(|known| *known == mode) {
                return Ok(("session/set_mode", json!({ "sessionId": row.id, "modeId": mode })));
            }
            match options.iter().find(|option| option["category"] == "mode") {
                Some(found) => {
                    let value = Value::from(*mode);
                    check(found, &value)?;
                    let id = found["id"].as_str().unwrap_or_default();
                    Ok(("session/set_config_option", option(id, &value)))
                }
                None => Err(refused("mode", mode, &known)),
            }
        }
        Setting::Category(category, value) => {
            let found = options.iter().find(|option| option["category"] == *category);
            let found = found.ok_or_else(|| {
                Problem::invalid(format!("this session has no option of the category {category}"))
            })?;
            let value = Value::from(*value);
            check(found, &value)?;
            let id = found["id"].as_str().unwrap_or_default();
            Ok(("session/set_config_option", option(id, &value)))
        }
    }
}

/// Whether a value is one of an option's.
fn check(option: &Value, value: &Value) -> Result<(), Problem> {
    let Some(choices) = option["options"].as_array() else { return Ok(()) };
    let groups = choices.iter().flat_map(|choice| match choice["options"].as_array() {
        Some(inner) => inner.iter().map(|one| &one["value"]).collect::<Vec<_>>(),
        None => vec![&choice["value"]],
    });
    let known: Vec<&Value> = groups.collect();
    if known.contains(&value) {
        return Ok(());
    }
    let shown = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    Err(refused(option["id"].as_str().unwrap_or("option"), &shown, &known))
}

fn refused(what: &str, given: &str, known: &[&Value]) -> Problem {
    let known: Vec<Value> = known.iter().map(|value| (*value).clone()).collect();
    let shown: Vec<&str> = known.iter().filter_map(Value::as_str).collect();
    let text = format!("{what}: there is no {given}; allowed: {}", shown.join(", "));
    Problem::invalid(text).with("allowed", known)
}

/// Agents that answer without their new options are taken at their word.
async fn remember(server: &Server, row: &SessionRow, setting: &Setting<'_>) -> Result<(), Problem> {
    let journal = &server.context.journal;
    let Some(mut now) = journal.session(row.id.clone()).await? else { return Ok(()) };
    let mut options = parsed(now.config_options.as_deref());
    let (member, wanted, value): (_, &str, Value) = match setting {
        Setting::Mode(mode) => ("category", "mode", (*mode).into()),
        Setting::Category(category, value) => ("category", *category, (*value).into()),
        Setting::Option(id, value) => ("id", *id, (*value).clone()),
    };
    let mut list = options.as_array_mut().into_iter().flatten();
    let Some(option) = list.find(|option| option[member] == wanted) else { return Ok(()) };
    option["currentValue"] = value;
    now.config_options = Some(options.to_string());
    Ok(journal.put_session(now).await?)
}
