//! The Python client's dialect of ACP: other names for methods and members, and text for content.
//!
//! Several clients share one server id and use the same request ids, so answers go to who asked, and to
//! nobody else.

use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::envelope::{Envelope, INVALID_PARAMS, METHOD_NOT_FOUND, NO_SUCH_RESOURCE};
use super::failure::raw_envelope;
use super::process::Publish;
use super::seat::Env;
use super::server::Server;
use crate::problem::Problem;

/// What an agent is told of who speaks to it.
fn opening() -> Value {
    json!({
        "protocolVersion": 1,
        "clientCapabilities": {},
        "clientInfo": { "name": "sandbox-agent", "version": env!("CARGO_PKG_VERSION") },
    })
}

/// Why a request has no result: told as a JSON-RPC error.
struct Refused(i64, String, Value);

enum Failed {
    Refused(Refused),
    Problem(Problem),
}

impl From<Problem> for Failed {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

fn refused(code: i64, text: impl Into<String>) -> Failed {
    Failed::Refused(Refused(code, text.into(), Value::Null))
}

/// Answers a request.
pub(super) async fn request(
    server: &Server,
    mut envelope: Envelope,
    env: Option<Env>,
) -> Result<Box<RawValue>, Problem> {
    // A prompt takes long: it would keep others waiting.
    drop(envelope.take_room());
    let id = envelope.id().map_or_else(|| RawValue::NULL.to_owned(), ToOwned::to_owned);
    let method = envelope.method().unwrap_or_default();
    let params = envelope.params();
    let done = match method.as_str() {
        "initialize" => Ok(greeting()),
        "authenticate" => Ok(json!({ "success": true })),
        "session/create" | "session/new" => create(server, &params, env).await,
        "session/list" => list(server, &params).await,
        "session/load" | "session/resume" => load(server, &params).await,
        "session/prompt" => prompt(server, params).await,
        "session/set_mode" => {
            let mode = params.get("mode").or(params.get("modeId")).cloned().unwrap_or_default();
            let params = json!({ "sessionId": params["sessionId"], "modeId": mode });
            pass(server, "session/set_mode", params).await
        }
        _ if params["sessionId"].is_string() => pass(server, &method, params).await,
        _ => Err(refused(METHOD_NOT_FOUND, format!("no method {method} without a session"))),
    };
    match done {
        Ok(result) => Ok(raw_envelope(&Envelope::result(&id, &result))),
        Err(Failed::Refused(Refused(code, text, data))) => {
            Ok(raw_envelope(&Envelope::error(&id, code, &text, data)))
        }
        Err(Failed::Problem(problem)) => Err(problem),
    }
}

fn greeting() -> Value {
    json!({
        "protocolVersion": 1,
        "capabilities": {},
        "agentCapabilities": { "loadSession": true },
        "serverInfo": { "name": "sandbox-agent", "version": env!("CARGO_PKG_VERSION") },
        "authMethods": [],
    })
}

async fn create(server: &Server, params: &Value, env: Option<Env>) -> Result<Value, Failed> {
    let agent =
        params["agent"].as_str().ok_or_else(|| refused(INVALID_PARAMS, "missing `agent`"))?;
    if !crate::agents::is_known(agent) {
        return Err(refused(INVALID_PARAMS, format!("there is no agent {agent}")));
    }
    let seat = match env {
        Some(env) => server.own_seat(agent, env),
        None => server.seat(None, agent),
    };
    let process = server.process(&seat, false).await?;
    if process.capabilities.get().is_none() {
        server.open(&process, &opening()).await?;
    }
    let init = &params["sessionInit"];
    let mut session = json!({ "mcpServers": init.get("mcpServers").cloned().unwrap_or(json!([])) });
    if init["cwd"].is_string() {
        session["cwd"] = init["cwd"].clone();
    }
    let envelope = server.amended(agent, Envelope::request("session/new", &session)).await;
    let (answer, _) = server.ask(&process, envelope, Publish::Asker, false).await?;
    let result = result(&answer)?;
    let id = result["sessionId"].as_str().unwrap_or_default().to_owned();
    server.seats.take(Some(&id), seat);
    Ok(json!({
        "sessionId": id,
        "agentSessionId": id,
        "modes": result["modes"],
        "configOptions": result["configOptions"],
    }))
}

async fn list(server: &Server, params: &Value) -> Result<Value, Failed> {
    let most = params["limit"].as_u64().unwrap_or(50).clamp(1, 500);
    let skip = params["cursor"].as_str().and_then(|cursor| cursor.parse().ok()).unwrap_or(0);
    let (rows, total) = server.context.journal.sessions(skip, most).await.map_err(Problem::from)?;
    let next = skip + rows.len() as u64;
    let sessions: Vec<Value> = rows.iter().map(super::rest::record).collect();
    let cursor = (next < total).then(|| next.to_string());
    Ok(json!({ "sessions": sessions, "nextCursor": cursor }))
}

async fn load(server: &Server, params: &Value) -> Result<Value, Failed> {
    let (_, id) = opened(server, &params["sessionId"]).await?;
    Ok(json!({ "sessionId": id, "agentSessionId": id }))
}

async fn prompt(server: &Server, mut params: Value) -> Result<Value, Failed> {
    let (process, id) = opened(server, &params["sessionId"]).await?;
    params["sessionId"] = id.into();
    let mut blocks = match &params["prompt"] {
        Value::String(text) => vec![json!({ "type": "text", "text": text })],
        Value::Array(blocks) => blocks.clone(),
        _ => return Err(refused(INVALID_PARAMS, "`prompt` must be a text or a list of blocks")),
    };
    blocks.extend(params["attachments"].as_array().into_iter().flatten().map(attachment));
    let asked = json!({ "sessionId": params["sessionId"], "prompt": blocks });
    let envelope = Envelope::request("session/prompt", &asked);
    let (answer, said) = server.ask(&process, envelope, Publish::Asker, true).await?;
    let mut result = result(&answer)?;
    result["content"] = said.text.into();
    if said.truncated {
        result["truncated"] = true.into();
    }
    result["error"] = Value::Null;
    Ok(result)
}

/// A file that goes with a prompt: a block already, or a path.
fn attachment(given: &Value) -> Value {
    match given {
        Value::String(path) => resource(path),
        Value::Object(block) if block.contains_key("type") => given.clone(),
        _ => resource(given["path"].as_str().or(given["uri"].as_str()).unwrap_or_default()),
    }
}

fn resource(path: &str) -> Value {
    let uri = if path.contains("://") { path.to_owned() } else { format!("file://{path}") };
    let name = path.rsplit('/').next().unwrap_or(path);
    json!({ "type": "resource_link", "uri": uri, "name": name })
}

/// Passes a request of a session on to its agent.
pub(super) async fn passed(
    server: &Server,
    method: &str,
    params: Value,
) -> Result<Result<Value, Value>, Problem> {
    match pass(server, method, params).await {
        Ok(result) => Ok(Ok(result)),
        Err(Failed::Problem(problem)) => Err(problem),
        Err(Failed::Refused(Refused(code, message, data))) => {
            Ok(Err(json!({ "code": code, "message": message, "data": data })))
        }
    }
}

async fn pass(server: &Server, method: &str, mut params: Value) -> Result<Value, Failed> {
    let (process, id) = opened(server, &params["sessionId"]).await?;
    params["sessionId"] = id.into();
    let envelope = Envelope::request(method, &params);
    let (answer, _) = server.ask(&process, envelope, Publish::Asker, false).await?;
    result(&answer)
}

/// The agent of a session, with that session open in it; and the session's id with the agent.
async fn opened(
    server: &Server,
    session: &Value,
) -> Result<(std::sync::Arc<super::process::AgentProcess>, String), Failed> {
    let asked = session.as_str().ok_or_else(|| refused(INVALID_PARAMS, "missing `sessionId`"))?;
    let row = server.context.journal.session(asked.to_owned()).await.map_err(Problem::from)?;
    let row = row.filter(|row| row.server == server.key && row.destroyed_s.is_none());
    let row =
        row.ok_or_else(|| refused(NO_SUCH_RESOURCE, format!("there is no session {asked}")))?;
    let seat = server.seat(Some(&row.id), &row.agent);
    let process = server.process(&seat, server.agent.is_some()).await?;
    if process.capabilities.get().is_none() && server.agent.is_none() {
        server.open(&process, &opening()).await?;
    }
    match server.reopen(&process, &row.id).await? {
        Ok(()) => Ok((process, row.id)),
        Err(text) => Err(refused(NO_SUCH_RESOURCE, text)),
    }
}

fn result(answer: &Envelope) -> Result<Value, Failed> {
    if answer.has("result") {
        let result = answer.member("result");
        return Ok(if result.is_object() { result } else { json!({}) });
    }
    let error = answer.member("error");
    let code = error["code"].as_i64().unwrap_or(super::envelope::INTERNAL);
    let text = error["message"].as_str().unwrap_or("the agent gave no reason").to_owned();
    Err(Failed::Refused(Refused(code, text, error["data"].clone())))
}

/// A permission request with a member more: that client looks for it under one name.
pub(super) fn with_permission(envelope: Envelope, params: Value) -> Envelope {
    let mut params = params;
    if params.is_object() {
        params["permission"] =
            json!({ "options": params["options"], "toolCall": params["toolCall"] });
    }
    envelope.with("params", &params)
}

/// Whether an answer says nothing but that there is none.
pub(super) fn cancels(envelope: &Envelope) -> bool {
    let outcome = &envelope.member("result")["outcome"];
    outcome["outcome"] == "cancelled" || *outcome == "cancelled"
}

/// An answer to a permission request, in ACP's words whatever words the client used.
pub(super) fn permission(envelope: Envelope, options: &Value) -> Envelope {
    let result = envelope.member("result");
    let outcome = &result["outcome"];
    let word = match outcome {
        Value::String(word) => word.as_str(),
        _ => outcome["outcome"].as_str().unwrap_or_default(),
    };
    let standard = matches!(word, "cancelled") && outcome.is_object()
        || word == "selected" && outcome["optionId"].is_string();
    if standard || !options.is_array() || !envelope.has("result") {
        return envelope;
    }
    let kinds: &[&str] = match word.to_ascii_lowercase().as_str() {
        "always" | "allow_always" | "allowed_always" => &["allow_always", "allow_once"],
        "once" | "allow" | "allowed" | "allow_once" | "approved" | "approve" | "yes"
        | "selected" => &["allow_once", "allow_always"],
        "reject_always" => &["reject_always", "reject_once"],
        "cancelled" | "" => &[],
        _ => &["reject_once", "reject_always"],
    };
    // One that names an option means that option.
    let options = options.as_array().map(Vec::as_slice).unwrap_or_default();
    let named = options.iter().find(|option| option["optionId"] == word);
    let of_kind =
        kinds.iter().find_map(|kind| options.iter().find(|option| option["kind"] == *kind));
    let outcome = match named.or(of_kind) {
        Some(option) => json!({ "outcome": "selected", "optionId": option["optionId"] }),
        None => json!({ "outcome": "cancelled" }),
    };
    envelope.with("result", &json!({ "outcome": outcome }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_free_word_means_one_of_the_options() {
        let options = json!([
            { "optionId": "a", "kind": "allow_once" },
            { "optionId": "b", "kind": "reject_once" },
        ]);
        let meant = |outcome: Value| {
            let text = json!({ "id": "1", "result": { "outcome": outcome } }).to_string();
            permission(Envelope::parse(&text).unwrap(), &options).member("result")["outcome"]
                .clone()
        };
        let a = json!({ "outcome": "selected", "optionId": "a" });
        let b = json!({ "outcome": "selected", "optionId": "b" });
        assert_eq!(meant(json!({ "outcome": "always" })), a);
        assert_eq!(meant(json!({ "outcome": "allowed" })), a);
        assert_eq!(meant(json!("once")), a);
        assert_eq!(meant(json!({ "outcome": "reject" })), b);
        assert_eq!(meant(json!({ "outcome": "cancelled" })), json!({ "outcome": "cancelled" }));
        assert_eq!(meant(b.clone()), b);
    }
}
