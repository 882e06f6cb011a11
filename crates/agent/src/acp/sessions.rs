//! What is known of sessions, read off the messages that pass.

use serde_json::{Value, json};

use super::envelope::Envelope;
use super::journal::{Journal, JournalError, SessionRow};
use crate::wire::now_ms;

/// Keeps up with the sessions of one agent process.
#[derive(Debug, Clone)]
pub(super) struct Tracker {
    pub(super) journal: Journal,
    pub(super) server: i64,
    pub(super) agent: String,
    pub(super) connection: String,
}

impl Tracker {
    /// An agent has answered.
    pub(super) async fn answered(
        &self,
        method: &str,
        params: &Value,
        session: Option<&str>,
        envelope: &Envelope,
    ) {
        if !envelope.has("result") {
            return;
        }
        let result = envelope.member("result");
        let kept = match (method, session) {
            ("session/new", _) => match result["sessionId"].as_str() {
                Some(id) => self.begun(id, params, &result).await,
                None => Ok(()),
            },
            ("session/load" | "session/resume", Some(id)) => self.begun(id, params, &result).await,
            ("session/set_mode", Some(id)) => {
                self.changed(id, None, params["modeId"].as_str()).await
            }
            ("session/set_config_option", Some(id)) => {
                self.changed(id, Some(&result["configOptions"]), None).await
            }
            _ => Ok(()),
        };
        log(kept);
    }

    /// An agent has told of a change.
    pub(super) async fn updated(&self, session: &str, envelope: &Envelope) {
        // Most updates are pieces of text: they are not taken apart for nothing.
        if !envelope.mentions("_update\"") {
            return;
        }
        let update = envelope.params()["update"].take();
        let kept = match update["sessionUpdate"].as_str() {
            Some("current_mode_update") => {
                self.changed(session, None, update["currentModeId"].as_str()).await
            }
            Some("config_option_update") => {
                self.changed(session, Some(&update["configOptions"]), None).await
            }
            _ => Ok(()),
        };
        log(kept);
    }

    async fn begun(&self, id: &str, params: &Value, result: &Value) -> Result<(), JournalError> {
        let text = |value: &Value| (!value.is_null()).then(|| value.to_string());
        self.journal
            .put_session(SessionRow {
                id: id.to_owned(),
                server: self.server,
                agent: self.agent.clone(),
                connection: self.connection.clone(),
                created_s: now_ms() / 1000,
                destroyed_s: None,
                init: Some(without_secrets(params).to_string()),
                config_options: text(&result["configOptions"]),
                modes: text(&result["modes"]),
            })
            .await
    }

    async fn changed(
        &self,
        id: &str,
        options: Option<&Value>,
        mode: Option<&str>,
    ) -> Result<(), JournalError> {
        let Some(mut row) = self.journal.session(id.to_owned()).await? else { return Ok(()) };
        if let Some(options) = options.filter(|options| options.is_array()) {
            row.config_options = Some(options.to_string());
        }
        if let (Some(mode), Some(modes)) = (mode, &row.modes) {
            let mut modes: Value = serde_json::from_str(modes).unwrap_or_default();
            modes["currentModeId"] = mode.into();
            row.modes = Some(modes.to_string());
        }
        self.journal.put_session(row).await
    }
}

/// How a session was begun, for the record: servers for tools may have keys in their environment.
fn without_secrets(params: &Value) -> Value {
    json!({ "cwd": params["cwd"] })
}

fn log(kept: Result<(), JournalError>) {
    if let Err(error) = kept {
        tracing::error!(
            error = &error as &dyn std::error::Error,
            "a session could not be recorded"
        );
    }
}
