//! Agents over the wire.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::install::{Artifact, Installed};
use crate::wire::{flag, null_is_default};

/// How much is wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct AgentsQuery {
    /// Versions, paths, and what can be set.
    #[serde(default, deserialize_with = "flag")]
    #[param(value_type = Option<bool>)]
    pub(super) config: bool,
    /// Nothing is kept here anyway.
    #[serde(default, deserialize_with = "flag")]
    #[param(value_type = Option<bool>)]
    #[expect(dead_code, reason = "accepted from clients")]
    no_cache: bool,
}

/// An agent.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AgentInfo {
    pub(super) id: &'static str,
    pub(super) installed: bool,
    pub(super) credentials_available: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) path: Option<String>,
    /// Eighteen of them.
    #[schema(value_type = BTreeMap<String, bool>)]
    pub(super) capabilities: BTreeMap<&'static str, bool>,
    /// While one runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) server_status: Option<AgentStatus>,
    /// As its newest session told them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) config_options: Option<Value>,
    /// Why they are not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) config_error: Option<String>,
}

/// How an agent's processes are.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AgentStatus {
    /// `running`
    pub(super) status: &'static str,
    pub(super) uptime_ms: u64,
}

/// All agents.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AgentList {
    pub(super) agents: Vec<AgentInfo>,
}

/// What to install.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct InstallRequest {
    /// Also if it is there.
    #[serde(default, deserialize_with = "null_is_default")]
    #[schema(value_type = Option<bool>)]
    pub(super) reinstall: bool,
    /// Of the agent itself, in place of the one that is pinned.
    #[serde(alias = "agent_version")]
    pub(super) agent_version: Option<String>,
    /// Of its ACP adapter, in place of the one that is pinned.
    #[serde(alias = "agent_process_version")]
    pub(super) agent_process_version: Option<String>,
}

/// How to be told.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct InstallQuery {
    /// As events: `progress` `{message}`, then `done` or `error`.
    #[serde(default, deserialize_with = "flag")]
    #[param(value_type = Option<bool>)]
    pub(super) stream: bool,
}

/// What came of it. Some clients read the one name, some the other.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct InstallResult {
    already_installed: bool,
    #[serde(rename = "alreadyInstalled")]
    also_already_installed: bool,
    #[schema(value_type = Vec<Object>)]
    artifacts: Vec<Artifact>,
}

impl From<Installed> for InstallResult {
    fn from(installed: Installed) -> Self {
        Self {
            already_installed: installed.already,
            also_already_installed: installed.already,
            artifacts: installed.artifacts,
        }
    }
}
