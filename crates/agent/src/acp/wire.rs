//! Agent sessions over the wire.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

/// A server.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ServerView {
    pub(super) server_id: String,
    pub(super) agent: String,
    /// Since 1970.
    pub(super) created_at_ms: u64,
    /// Whether an agent of it owes an answer, though nobody may wait for that any more.
    pub(super) busy: bool,
}

/// The servers there are.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ServerList {
    pub(super) servers: Vec<ServerView>,
}

/// Whom to speak to.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct AgentQuery {
    /// Needed by the first message of a server.
    pub(super) agent: Option<String>,
}

/// Which page.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(crate) struct PageQuery {
    /// From 1.
    pub(super) page: Option<u64>,
    /// Default 50, at most 500.
    pub(super) per_page: Option<u64>,
}

/// A session.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SessionRecord {
    pub(super) id: String,
    pub(super) agent: String,
    pub(super) agent_session_id: String,
    /// The server that speaks for it.
    pub(super) last_connection_id: String,
    /// Seconds since 1970.
    pub(super) created_at: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) destroyed_at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) session_init: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) config_options: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) modes: Option<Value>,
}

/// A page of sessions, newest first.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SessionList {
    #[schema(value_type = Vec<SessionRecord>)]
    pub(super) sessions: Vec<Value>,
    pub(super) page: u64,
    pub(super) per_page: u64,
    /// On all pages.
    pub(super) total: u64,
}

/// Something that was said in a session.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SessionEvent {
    pub(super) id: String,
    /// Rises with time.
    pub(super) event_index: u64,
    pub(super) session_id: String,
    /// Milliseconds since 1970.
    pub(super) created_at: u64,
    pub(super) connection_id: String,
    /// `client` or `agent`
    pub(super) sender: &'static str,
    /// The message as it was sent.
    pub(super) payload: Value,
}

/// A page of events, oldest first.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EventList {
    pub(super) events: Vec<SessionEvent>,
    pub(super) page: u64,
    pub(super) per_page: u64,
    /// On all pages.
    pub(super) total: u64,
}

/// Which model.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct ModelRequest {
    pub(super) model: String,
}

/// Which mode.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct ModeRequest {
    pub(super) mode: String,
}

/// How hard to think.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ThoughtLevelRequest {
    pub(super) thought_level: String,
}

/// Which option, and its value.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ConfigOptionRequest {
    pub(super) config_id: String,
    #[schema(value_type = Object)]
    pub(super) value: Value,
}
