//! Why something was not done with an agent, and what the caller hears.

use httpkit::{ApiError, Kind};
use store::StoreError;

use crate::exec::{AskError, ExecError};
use crate::sessions::SessionError;
use crate::workspaces::WorkspaceError;

/// Why something was not done with an agent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AgentError {
    #[error("agent of workspace {0}: there is none; start one with POST")]
    Missing(String),
    #[error(
        "the agent cannot stand still: a command runs beside it, or somebody begins or ends it; try again"
    )]
    Guest,
    #[error("an agent lives in this workspace already: use it, or end it with DELETE first")]
    Present,
    #[error(
        "agents[{index}]: {name:?} is not installed on this server: `agentjail agents install {name}`"
    )]
    NotInstalled { index: usize, name: String },
    #[error(
        "session_id and services exclude each other: name a session, or say what one shall be made of"
    )]
    TwoSessions,
    #[error(
        "agent.services: the agent that is there uses a session that was made apart; say what services the forks' shall have"
    )]
    NobodysSession,
    #[error(
        "network: an agent is asked over its jail's loopback interface: choose mode `loopback` or `allowlist`"
    )]
    ClosedNetwork,
    #[error("scopes without services: say what session to make")]
    ScopesAlone,
    #[error("session_id: {0} is of another tenant than the workspace")]
    OtherTenant(String),
    #[error(
        "env[{0}]: a name is letters, digits and `_`, neither HOME nor one of SANDBOX_AGENT_…; it and its value are shorter than 128 KiB, without NUL"
    )]
    Environment(usize),
    #[error("{field}: an agent needs at least {least}")]
    TooLittle { field: &'static str, least: u64 },
    #[error(
        "session_id: {0} was made for an agent, and ends with it: use `services`, or a session of your own"
    )]
    AgentsSession(String),
    #[error("session_id: {0} has expired")]
    SessionExpired(String),
    #[error(
        "the agent's session has ended, and its keys with it: end the agent with DELETE, and start one anew"
    )]
    SessionGone,
    #[error("the agent ended as soon as it was started: {0}")]
    Died(String),
    #[error("the agent was started and does not answer")]
    Silent,
    #[error("this program could not be put where jails see it")]
    Program(#[source] std::io::Error),
    #[error(transparent)]
    Workspace(#[from] WorkspaceError),
    #[error(transparent)]
    Exec(#[from] ExecError),
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error("the store failed")]
    Store(#[from] StoreError),
    #[error("stored settings of an agent cannot be read")]
    Settings(#[source] serde_json::Error),
}

impl From<AskError> for AgentError {
    fn from(error: AskError) -> Self {
        Self::Exec(error.into())
    }
}

impl From<AgentError> for ApiError {
    fn from(error: AgentError) -> Self {
        use AgentError as E;
        match error {
            E::Workspace(error) => error.into(),
            E::Exec(error) => error.into(),
            E::Session(error) => error.into(),
            E::Missing(_) => Self::new(Kind::NotFound, error),
            E::Present | E::Guest | E::SessionGone => Self::new(Kind::Conflict, error),
            E::NotInstalled { .. }
            | E::TwoSessions
            | E::ScopesAlone
            | E::ClosedNetwork
            | E::NobodysSession
            | E::OtherTenant(_)
            | E::AgentsSession(_)
            | E::SessionExpired(_)
            | E::TooLittle { .. }
            | E::Environment(_) => Self::new(Kind::Invalid, error),
            E::Died(_) | E::Silent => Self::new(Kind::BadGateway, error),
            E::Program(_) | E::Store(_) | E::Settings(_) => Self::internal(error),
        }
    }
}
