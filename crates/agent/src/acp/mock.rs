//! The built-in agent `mock`: it speaks ACP on its standard streams and needs no model.
//!
//! A prompt is said back word by word. Words in it make it do more: `permission` asks before a tool call,
//! `tool` makes one without asking, `plan` and `think` show those, `wait` works until it is cancelled,
//! `crash` ends it. What it does not know it echoes.

use std::collections::HashMap;
use std::io::{self, BufRead, Write};
use std::path::PathBuf;

use agent_client_protocol_schema::v1 as acp;
use serde_json::{Value, json};

/// Serves until its input ends. `state` keeps sessions for `session/load`, if it can be written.
pub fn run(state: Option<PathBuf>) -> io::Result<()> {
    let stdin = io::stdin();
    let mut mock = Mock {
        out: io::stdout(),
        sessions: HashMap::new(),
        last: 0,
        waiting: HashMap::new(),
        state,
    };
    for line in stdin.lock().lines() {
        let line = line?;
        match serde_json::from_str::<Value>(&line) {
            Ok(message) => mock.take(&message)?,
            Err(error) => {
                let params = json!({ "error": error.to_string(), "raw": line });
                mock.notify("mock/parse_error", &params)?;
            }
        }
    }
    Ok(())
}

struct Mock {
    out: io::Stdout,
    sessions: HashMap<String, Session>,
    last: u64,
    /// Prompts that go on when an answer comes, by session.
    waiting: HashMap<String, Waiting>,
    state: Option<PathBuf>,
}

struct Waiting {
    prompt: Value,
    /// The request that was made; none if only a cancellation is waited for.
    asked: Option<u64>,
}

#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
struct Session {
    mode: String,
    options: HashMap<String, String>,
    history: Vec<(String, String)>,
}

impl Mock {
    fn take(&mut self, message: &Value) -> io::Result<()> {
        match (message["method"].as_str(), message.get("id")) {
            (Some(method), Some(id)) => self.request(method, id, message),
            (Some("session/cancel"), None) => self.cancel(&message["params"]),
            (Some(_), None) => self.notify("mock/echo", &json!({ "message": message })),
            (None, Some(id)) => self.answer(id, message),
            (None, None) => self.notify("mock/echo", &json!({ "message": message })),
        }
    }

    fn request(&mut self, method: &str, id: &Value, message: &Value) -> io::Result<()> {
        let params = &message["params"];
        match method {
            "initialize" => self.reply(id, &initialized()),
            "authenticate" => self.reply(id, &json!({})),
            "session/new" => {
                let session = random();
                self.sessions.insert(
                    session.clone(),
                    Session { mode: "normal".to_owned(), ..Session::default() },
                );
                self.save(&session);
                let mut answer = self.described(&session);
                answer["sessionId"] = session.into();
                self.reply(id, &answer)
            }
            "session/load" => self.load(id, params),
            "session/list" => {
                let sessions: Vec<Value> =
                    self.sessions.keys().map(|id| json!({ "sessionId": id, "cwd": "/" })).collect();
                self.reply(id, &json!({ "sessions": sessions }))
            }
            "session/set_mode" => self.set(id, params, |session| {
                params["modeId"].as_str().unwrap_or_default().clone_into(&mut session.mode);
            }),
            "session/set_config_option" => {
                let name = params["configId"].as_str().unwrap_or_default().to_owned();
                let value = params["value"].as_str().unwrap_or_default().to_owned();
                self.set(id, params, |session| {
                    if name == "mode" {
                        session.mode.clone_from(&value);
                    }
                    session.options.insert(name, value);
                })
            }
            "session/prompt" => self.prompt(id, params),
            _ => {
                self.notify("mock/echo", &json!({ "message": message }))?;
                self.reply(id, &json!({ "echoed": message }))
            }
        }
    }

    fn load(&mut self, id: &Value, params: &Value) -> io::Result<()> {
        let session = params["sessionId"].as_str().unwrap_or_default().to_owned();
        if !self.sessions.contains_key(&session) {
            match self.saved(&session) {
                Some(saved) => drop(self.sessions.insert(session.clone(), saved)),
                None => return self.fail(id, -32002, &format!("no session {session}")),
            }
        }
        let history = self.sessions[&session].history.clone();
        for (asked, said) in history {
            self.update(&session, &chunk("user_message_chunk", &asked))?;
            self.update(&session, &chunk("agent_message_chunk", &said))?;
        }
        let described = self.described(&session);
        self.reply(id, &described)
    }

    fn set(
        &mut self,
        id: &Value,
        params: &Value,
        change: impl FnOnce(&mut Session),
    ) -> io::Result<()> {
        let session = params["sessionId"].as_str().unwrap_or_default().to_owned();
        let Some(found) = self.sessions.get_mut(&session) else {
            return self.fail(id, -32002, &format!("no session {session}"));
        };
        change(found);
        self.save(&session);
        let described = self.described(&session);
        self.reply(id, &json!({ "configOptions": described["configOptions"] }))
    }

    fn prompt(&mut self, id: &Value, params: &Value) -> io::Result<()> {
        let session = params["sessionId"].as_str().unwrap_or_default().to_owned();
        if !self.sessions.contains_key(&session) {
            return self.fail(id, -32002, &format!("no session {session}"));
        }
        let blocks = params["prompt"].as_array().cloned().unwrap_or_default();
        let text: Vec<&str> = blocks.iter().filter_map(|block| block["text"].as_str()).collect();
        let text = text.join(" ");
        let has = |word: &str| text.split(|c: char| !c.is_alphanumeric()).any(|one| one == word);
        if has("crash") {
            eprintln!("mock: as you wish");
            std::process::exit(3);
        }
        if has("think") {
            self.update(&session, &chunk("agent_thought_chunk", "Let me see."))?;
        }
        if has("plan") {
            let entries = json!([{ "content": "Say it back", "priority": "medium", "status": "in_progress" }]);
            self.update(&session, &json!({ "sessionUpdate": "plan", "entries": entries }))?;
        }
        let said = format!("You said: {text}");
        for word in said.split_inclusive(' ') {
            self.update(&session, &chunk("agent_message_chunk", word))?;
        }
        if let Some(found) = self.sessions.get_mut(&session) {
            found.history.push((text.clone(), said));
        }
        self.save(&session);
        if has("tool") {
            self.tool(&session, "completed", Some("done"))?;
        }
        if has("permission") {
            self.tool(&session, "pending", None)?;
            let asked = self.ask(&session)?;
            return self.wait(session, Waiting { prompt: id.clone(), asked: Some(asked) });
        }
        if has("wait") {
            return self.wait(session, Waiting { prompt: id.clone(), asked: None });
        }
        self.stop(id, acp::StopReason::EndTurn)
    }

    fn ask(&mut self, session: &str) -> io::Result<u64> {
        self.last += 1;
        let options = json!([
            { "optionId": "allow", "name": "Allow", "kind": acp::PermissionOptionKind::AllowOnce },
            { "optionId": "always", "name": "Always allow", "kind": acp::PermissionOptionKind::AllowAlways },
            { "optionId": "reject", "name": "Reject", "kind": acp::PermissionOptionKind::RejectOnce },
        ]);
        let params = json!({ "sessionId": session, "toolCall": { "toolCallId": "call-1" }, "options": options });
        let request =
            json!({ "id": self.last, "method": "session/request_permission", "params": params });
        self.send(request)?;
        Ok(self.last)
    }

    fn answer(&mut self, id: &Value, message: &Value) -> io::Result<()> {
        let found = self
            .waiting
            .iter()
            .find(|(_, waiting)| waiting.asked.is_some_and(|asked| *id == asked));
        let session = found.map(|(session, _)| session.clone());
        let waiting = session.and_then(|session| self.waiting.remove_entry(&session));
        let Some((session, waiting)) = waiting else {
            let params =
                json!({ "id": id, "result": message["result"], "error": message["error"] });
            return self.notify("mock/client_response", &params);
        };
        let outcome = &message["result"]["outcome"];
        let allowed = matches!(outcome["optionId"].as_str(), Some("allow" | "always"));
        let (status, text) =
            if allowed { ("completed", "allowed") } else { ("failed", "rejected") };
        self.tool_update(&session, status, text)?;
        let text = if allowed { " It was allowed." } else { " It was not allowed." };
        self.update(&session, &chunk("agent_message_chunk", text))?;
        let cancelled = outcome["outcome"] == "cancelled";
        let reason = if cancelled { acp::StopReason::Cancelled } else { acp::StopReason::EndTurn };
        self.stop(&waiting.prompt, reason)
    }

    /// Lets a prompt wait. One that waited in its session before is over.
    fn wait(&mut self, session: String, waiting: Waiting) -> io::Result<()> {
        match self.waiting.insert(session, waiting) {
            Some(former) => self.stop(&former.prompt, acp::StopReason::Cancelled),
            None => Ok(()),
        }
    }

    fn cancel(&mut self, params: &Value) -> io::Result<()> {
        let session = params["sessionId"].as_str().unwrap_or_default();
        match self.waiting.remove(session) {
            Some(waiting) => self.stop(&waiting.prompt, acp::StopReason::Cancelled),
            None => Ok(()),
        }
    }

    fn tool(&mut self, session: &str, status: &str, text: Option<&str>) -> io::Result<()> {
        let call = json!({
            "sessionUpdate": "tool_call", "toolCallId": "call-1", "title": "Pretend to work",
            "kind": "execute", "status": "pending", "rawInput": { "command": "true" },
        });
        self.update(session, &call)?;
        match text {
            Some(text) => self.tool_update(session, status, text),
            None => Ok(()),
        }
    }

    fn tool_update(&mut self, session: &str, status: &str, text: &str) -> io::Result<()> {
        let content = json!([{ "type": "content", "content": { "type": "text", "text": text } }]);
        let update = json!({
            "sessionUpdate": "tool_call_update", "toolCallId": "call-1", "status": status, "content": content,
        });
        self.update(session, &update)
    }

    fn described(&self, session: &str) -> Value {
        described(&self.sessions.get(session).cloned().unwrap_or_default())
    }

    fn saved(&self, session: &str) -> Option<Session> {
        let file = self.file(session)?;
        serde_json::from_slice(&std::fs::read(file).ok()?).ok()
    }

    fn save(&self, session: &str) {
        let (Some(file), Some(found)) = (self.file(session), self.sessions.get(session)) else {
            return;
        };
        if let (Some(directory), Ok(text)) = (file.parent(), serde_json::to_vec(found)) {
            // Kept if it can be: sessions end with the process otherwise.
            drop(std::fs::create_dir_all(directory));
            let fresh = file.with_extension("partial");
            if std::fs::write(&fresh, text).is_ok() {
                drop(std::fs::rename(fresh, file));
            }
        }
    }

    fn file(&self, session: &str) -> Option<PathBuf> {
        let plain = session.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        plain.then(|| Some(self.state.as_ref()?.join(format!("{session}.json"))))?
    }

    fn update(&mut self, session: &str, update: &Value) -> io::Result<()> {
        self.notify("session/update", &json!({ "sessionId": session, "update": update }))
    }

    fn stop(&mut self, id: &Value, reason: acp::StopReason) -> io::Result<()> {
        self.reply(id, &json!({ "stopReason": reason }))
    }

    fn notify(&mut self, method: &str, params: &Value) -> io::Result<()> {
        self.send(json!({ "method": method, "params": params }))
    }

    fn reply(&mut self, id: &Value, result: &Value) -> io::Result<()> {
        self.send(json!({ "id": id, "result": result }))
    }

    fn fail(&mut self, id: &Value, code: i64, text: &str) -> io::Result<()> {
        self.send(json!({ "id": id, "error": { "code": code, "message": text } }))
    }

    fn send(&mut self, mut message: Value) -> io::Result<()> {
        message["jsonrpc"] = "2.0".into();
        let mut line = message.to_string();
        line.push('\n');
        self.out.write_all(line.as_bytes())?;
        self.out.flush()
    }
}

/// What can be set of a fresh session.
pub(super) fn options() -> Value {
    described(&Session { mode: "normal".to_owned(), ..Session::default() })["configOptions"].take()
}

/// Modes and options of a session, as they are told.
fn described(session: &Session) -> Value {
    let current = |id: &str, default: &str| {
        session.options.get(id).cloned().unwrap_or_else(|| default.to_owned())
    };
    let select = |id: &str, name: &str, category: &str, current: &str, values: &[&str]| {
        let options: Vec<Value> =
            values.iter().map(|value| json!({ "value": value, "name": value })).collect();
        json!({ "id": id, "name": name, "category": category, "type": "select",
            "currentValue": current, "options": options })
    };
    json!({
        "modes": {
            "currentModeId": session.mode,
            "availableModes": [{ "id": "normal", "name": "Normal" }, { "id": "plan", "name": "Plan" }],
        },
        "configOptions": [
            select("model", "Model", "model", &current("model", "mock"), &["mock", "mock-fast"]),
            select("mode", "Mode", "mode", &session.mode, &["normal", "plan"]),
            select("thought_level", "Thought level", "thought_level",
                &current("thought_level", "low"), &["low", "medium", "high"]),
        ],
    })
}

fn initialized() -> Value {
    json!({
        "protocolVersion": agent_client_protocol_schema::ProtocolVersion::V1,
        "agentCapabilities": {
            "loadSession": true,
            "promptCapabilities": { "image": true, "audio": false, "embeddedContext": true },
        },
        "authMethods": [],
        "agentInfo": { "name": "mock", "version": env!("CARGO_PKG_VERSION") },
    })
}

fn chunk(kind: &str, text: &str) -> Value {
    json!({ "sessionUpdate": kind, "content": { "type": "text", "text": text } })
}

fn random() -> String {
    let mut bytes = [0_u8; 12];
    // One that repeats is a nuisance in a pretended session, no more.
    let _ = getrandom::fill(&mut bytes);
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("mock-{hex}")
}
