//! Sandbox agents that live in workspaces, as their clients see them.

use reqwest::{Method, RequestBuilder};
use rustix::process::Pid;
use serde_json::{Value, json};

use crate::house::{As, House, answer, id};
use crate::leftovers;

/// The tenant whose agents they are.
pub const ACME: As<'_> = As("acme-key");

/// An agent, and the token that opens it.
#[derive(Debug)]
pub struct Agent {
    pub url: String,
    pub token: String,
    pub session: Value,
}

impl Agent {
    /// Of what its start has told.
    ///
    /// # Panics
    ///
    /// If it is not as it should be.
    pub fn of(started: &Value) -> Self {
        let text = |name: &str| started[name].as_str().unwrap_or_else(|| panic!("{started}"));
        Self {
            url: text("url").to_owned(),
            token: text("token").to_owned(),
            session: started["session_id"].clone(),
        }
    }

    /// Starts one.
    ///
    /// # Panics
    ///
    /// If it is not as it should be.
    pub async fn start(house: &House, workspace: &Value, body: Value) -> Self {
        let path = format!("/v1/workspaces/{}/agent", id(workspace));
        let (status, started) = house.post(ACME, &path, body).await;
        assert_eq!(status, 201, "{started}");
        Self::of(&started)
    }

    /// A request with its token.
    pub fn request(&self, house: &House, method: Method, path: &str) -> RequestBuilder {
        house.client.request(method, format!("{}{path}", self.url)).bearer_auth(&self.token)
    }

    /// Asks it for something.
    ///
    /// # Panics
    ///
    /// If it is not as it should be.
    pub async fn get(&self, house: &House, path: &str) -> (u16, Value) {
        answer(self.request(house, Method::GET, path).send().await.expect("an answer")).await
    }

    /// Tells it something.
    ///
    /// # Panics
    ///
    /// If it is not as it should be.
    pub async fn post(&self, house: &House, path: &str, body: Value) -> (u16, Value) {
        answer(self.request(house, Method::POST, path).json(&body).send().await.expect("an answer"))
            .await
    }

    /// What a script in its jail writes.
    ///
    /// # Panics
    ///
    /// If it is not as it should be.
    pub async fn sh(&self, house: &House, script: &str) -> String {
        let body = json!({ "command": "sh", "args": ["-c", script] });
        let (status, result) = self.post(house, "/v1/processes/run", body).await;
        assert_eq!(status, 200, "{result}");
        result["stdout"].as_str().expect("a text").to_owned()
    }

    /// Asks the built-in coding agent.
    ///
    /// # Panics
    ///
    /// If it is not as it should be.
    pub async fn rpc(&self, house: &House, method: &str, params: Value) -> Value {
        let body = json!({ "jsonrpc": "2.0", "id": method, "method": method, "params": params });
        let (status, said) = self.post(house, "/v1/acp/conversation?agent=mock", body).await;
        assert_eq!(status, 200, "{method}: {said}");
        said["result"].clone()
    }

    /// Begins a conversation; gives its name.
    ///
    /// # Panics
    ///
    /// If it is not as it should be.
    pub async fn converse(&self, house: &House) -> String {
        self.rpc(house, "initialize", json!({ "protocolVersion": 1 })).await;
        let params = json!({ "cwd": "/workspace", "mcpServers": [] });
        let made = self.rpc(house, "session/new", params).await;
        made["sessionId"].as_str().expect("an id").to_owned()
    }

    /// Prompts the built-in coding agent.
    ///
    /// # Panics
    ///
    /// If it is not as it should be.
    pub async fn prompt(&self, house: &House, session: &str, text: &str) -> Value {
        let prompt = json!([{ "type": "text", "text": text }]);
        self.rpc(house, "session/prompt", json!({ "sessionId": session, "prompt": prompt })).await
    }

    /// What was said in a conversation, as far as it is on record.
    ///
    /// # Panics
    ///
    /// If it is not as it should be.
    pub async fn said(&self, house: &House, session: &str) -> String {
        let path = format!("/v1/sessions/{session}/events?perPage=500");
        self.get(house, &path).await.1.to_string()
    }
}

/// What the control plane says of it.
pub async fn state(house: &House, workspace: &Value) -> Value {
    house.get(ACME, &format!("/v1/workspaces/{}/agent", id(workspace))).await.1
}

/// Tells it to run, to stand still or to end.
///
/// # Panics
///
/// If there is no answer.
pub async fn patch(house: &House, workspace: &Value, state: &str) -> (u16, Value) {
    let path = format!("/v1/workspaces/{}/agent", id(workspace));
    let request = house.request(ACME, Method::PATCH, &path).json(&json!({ "state": state }));
    answer(request.send().await.expect("an answer")).await
}

/// Processes below the server whose command line holds a text.
pub fn processes(house: &House, text: &str) -> Vec<Pid> {
    let found = leftovers::descendants(house.pid());
    let found = found.into_iter().filter(|pid| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).replace('\0', " ").contains(text)
    });
    found.filter_map(|pid| Pid::from_raw(pid.cast_signed())).collect()
}
