//! Agents over the wire.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::error::AgentError;
use crate::exec::NetworkSpec;

/// An agent to start. All of it may be left out.
#[derive(Debug, Clone, Default, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct StartAgent {
    /// Of which a session is made for it, and goes with it: its environment holds phantom tokens, never a key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) services: Option<Vec<String>>,
    /// Path globs by service, as of a session.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) scopes: BTreeMap<String, Vec<String>>,
    /// A session that is there already, in place of `services`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) session_id: Option<String>,
    /// Coding agents that must be there, of those that `agentjail agents install` has put on the server.
    /// Default: all of them that there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) agents: Option<Vec<String>>,
    /// In place of the workspace's. Models are reached through the phantom proxy in any mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) network: Option<NetworkSpec>,
    /// Default 2048, from 64 to 8192.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) memory_mb: Option<u64>,
    /// Processes and threads. Default 512, from 32 to 1024.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) max_pids: Option<u64>,
    /// Of one CPU. Default 200, from 1 to 800.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cpu_percent: Option<u64>,
    /// Pairs of name and value, for all that runs there; not a place for keys.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<Vec<String>>)]
    pub(crate) env: Vec<(String, String)>,
}

/// Least limits with which an agent comes up at all.
const LEAST_MEMORY_MB: u64 = 64;
const LEAST_PIDS: u64 = 32;

/// A variable's name and value together, and what is between and after them: more, no program is given.
const LONGEST_VARIABLE: usize = 128 * 1024 - 2;

impl StartAgent {
    /// What can be known to be wrong before anything is made.
    ///
    /// # Errors
    ///
    /// The field, and what it must be.
    pub(super) fn check(&self) -> Result<(), AgentError> {
        for (n, (name, value)) in self.env.iter().enumerate() {
            let named = name.starts_with(|first: char| first == '_' || first.is_ascii_alphabetic())
                && name.chars().all(|other| other == '_' || other.is_ascii_alphanumeric());
            // Those are the program's own, its token among them.
            let owned = name == "HOME" || name.starts_with("SANDBOX_AGENT_");
            let long = name.len() + value.len() > LONGEST_VARIABLE;
            if !named || owned || long || value.contains('\0') {
                return Err(AgentError::Environment(n));
            }
        }
        if matches!(self.network, Some(NetworkSpec::None)) {
            return Err(AgentError::ClosedNetwork);
        }
        for (field, value, least) in [
            ("memory_mb", self.memory_mb, LEAST_MEMORY_MB),
            ("max_pids", self.max_pids, LEAST_PIDS),
            ("cpu_percent", self.cpu_percent, 1),
        ] {
            if value.is_some_and(|value| value < least) {
                return Err(AgentError::TooLittle { field, least });
            }
        }
        Ok(())
    }

    /// With what is left out taken from another, whose session stays its own: one is made of the same services.
    ///
    /// # Errors
    ///
    /// If the other has a session of which it is not known what it was made of.
    pub(crate) fn over(self, other: Self) -> Result<Self, AgentError> {
        let own = self.services.is_some() || self.session_id.is_some();
        if !own && other.session_id.is_some() {
            return Err(AgentError::NobodysSession);
        }
        let session =
            if own { (self.services, self.scopes) } else { (other.services, other.scopes) };
        Ok(Self {
            services: session.0,
            scopes: session.1,
            session_id: self.session_id,
            agents: self.agents.or(other.agents),
            network: self.network.or(other.network),
            memory_mb: self.memory_mb.or(other.memory_mb),
            max_pids: self.max_pids.or(other.max_pids),
            cpu_percent: self.cpu_percent.or(other.cpu_percent),
            env: if self.env.is_empty() { other.env } else { self.env },
        })
    }
}

/// What an agent shall do from now on.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PatchAgent {
    pub(super) state: AgentState,
}

/// How an agent is, or shall be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum AgentState {
    /// It answers.
    Running,
    /// Its jail stands still, and a snapshot was taken. Whatever is asked of it wakes it.
    Paused,
    /// Its jail is gone. Whatever is asked of it starts it again, over the same files and conversations.
    Ended,
}

/// A sandbox agent that answers.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AgentStarted {
    /// Where clients of a sandbox agent connect: HTTP, event streams and web sockets below it.
    pub(super) url: String,
    /// Opens that URL and nothing else. It is told this once.
    pub(super) token: String,
    pub(super) session_id: Option<String>,
}

/// A workspace's agent.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AgentView {
    pub(super) state: AgentState,
    pub(super) url: String,
    pub(super) session_id: Option<String>,
    pub(super) created_at: String,
    /// Coding agents that were put in.
    pub(super) agents: Vec<String>,
    /// Its row in the ledger, while it runs.
    pub(super) jail_id: Option<i64>,
    /// How it last ended by itself: `reason` (`exited`, `oom_killed`, `quota`), `exit_code`, `at`.
    pub(super) ended: Option<Value>,
}
