//! How connections and sessions are opened, and opened again with an agent that was started again.

use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use serde_json::{Value, json};

use super::Server;
use crate::acp::envelope::Envelope;
use crate::acp::process::{AgentProcess, Publish};
use crate::problem::{Code, Problem};

impl Server {
    pub(super) fn initialize(&self) -> Option<Value> {
        let text = self.initialize.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        serde_json::from_str(&text).ok()
    }

    pub(super) async fn set_initialize(&self, params: &Value) -> Result<(), Problem> {
        let text = params.to_string();
        *self.initialize.lock().unwrap_or_else(PoisonError::into_inner) = Some(text.clone());
        self.context.journal.set_initialize(self.key, text).await.map_err(Problem::internal)
    }

    /// Opens the connection to a fresh process, unheard by clients.
    pub(in crate::acp) async fn open(
        &self,
        process: &AgentProcess,
        params: &Value,
    ) -> Result<(), Problem> {
        let envelope = Envelope::request("initialize", params);
        let (answer, _) = self.ask(process, envelope, Publish::Asker, false).await?;
        if !answer.has("result") {
            let message =
                answer.member("error")["message"].as_str().unwrap_or("no reason").to_owned();
            let text = format!("{} refused to be initialized: {message}", process.agent);
            return Err(Problem::new(Code::StreamError, text));
        }
        drop(process.capabilities.set(answer.member("result")));
        Ok(())
    }

    /// Loads a session into a process that has not opened it: one that was started again. The inner error
    /// is why the session cannot go on.
    pub(in crate::acp) async fn reopen(
        &self,
        process: &AgentProcess,
        session: &str,
    ) -> Result<Result<(), String>, Problem> {
        if process.has_open(session) {
            return Ok(Ok(()));
        }
        let _loading = process.loading.lock().await;
        if process.has_open(session) {
            return Ok(Ok(()));
        }
        let row =
            self.context.journal.session(session.to_owned()).await.map_err(Problem::internal)?;
        // Unknown to us: the agent says what it thinks of it.
        let Some(row) = row.filter(|row| row.server == self.key) else { return Ok(Ok(())) };
        let capabilities = process.capabilities.get().cloned().unwrap_or_default();
        if capabilities["agentCapabilities"]["loadSession"] != true {
            let text =
                format!("{} was started again and cannot load earlier sessions", process.agent);
            return Ok(Err(text));
        }
        let init: Value = row
            .init
            .as_deref()
            .and_then(|init| serde_json::from_str(init).ok())
            .unwrap_or_default();
        let params = json!({ "sessionId": session, "cwd": init["cwd"] });
        let envelope =
            self.amended(&process.agent, Envelope::request("session/load", &params)).await;
        process.mute(session, true);
        let asked = self.ask(process, envelope, Publish::Asker, false).await;
        process.mute(session, false);
        let (answer, _) = asked?;
        if answer.has("result") {
            process.opened(session);
            return Ok(Ok(()));
        }
        let error = answer.member("error");
        let message = error["message"].as_str().unwrap_or("no reason");
        // Some say no more than "Internal error", and why beside it.
        let details = error["data"]["details"].as_str().map(|details| format!(" ({details})"));
        let details = details.unwrap_or_default();
        Ok(Err(format!("{} could not load the session: {message}{details}", process.agent)))
    }

    /// The parameters of a new or loaded session, with what is configured for its directory.
    pub(in crate::acp) async fn amended(&self, agent: &str, envelope: Envelope) -> Envelope {
        let mut params = envelope.params();
        if !params.is_object() {
            params = json!({});
        }
        let cwd = params["cwd"].as_str().map_or_else(|| self.context.home.clone(), PathBuf::from);
        let cwd = usable(&cwd, &self.context.home).await;
        params["cwd"] = cwd.display().to_string().into();
        let given = params["mcpServers"].as_array().cloned().unwrap_or_default();
        let (mcp, skills) = match params["sessionId"].as_str() {
            Some(session) => self.own_settings(session).await,
            None => (None, None),
        };
        let settings = &self.context.settings;
        let configured = settings.mcp_servers(mcp, &cwd, &self.context.environment).await;
        params["mcpServers"] = merged(given, configured).into();
        settings.place_skills(skills, &cwd, agent).await;
        envelope.with("params", &params)
    }

    /// What is configured for a session alone.
    async fn own_settings(&self, session: &str) -> (Option<Value>, Option<Value>) {
        let found = self.context.journal.own_settings(session.to_owned()).await;
        let (mcp, skills) = found.unwrap_or_else(|error| {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "a session's settings cannot be read"
            );
            (None, None)
        });
        let read = |text: Option<String>| text.and_then(|text| serde_json::from_str(&text).ok());
        (read(mcp), read(skills))
    }
}

/// The directory a session can work in: the one that was asked for, made if it is missing, or the home.
async fn usable(asked: &Path, home: &Path) -> PathBuf {
    let (asked, home) = (asked.to_owned(), home.to_owned());
    crate::blocking::blocking(move || {
        let fits =
            asked.is_absolute() && (asked.is_dir() || std::fs::create_dir_all(&asked).is_ok());
        if fits { asked } else { home }
    })
    .await
}

/// Servers for tools: those of the client, and those that are configured under other names.
fn merged(given: Vec<Value>, configured: Vec<Value>) -> Vec<Value> {
    let mut all = given;
    for one in configured {
        if !all.iter().any(|known| known["name"] == one["name"]) {
            all.push(one);
        }
    }
    all
}
