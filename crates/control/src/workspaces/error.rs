//! Why something was not done with a workspace, and what the caller hears.

use httpkit::{ApiError, Kind};
use store::StoreError;

use crate::exec::{AskError, ExecError};
use crate::git::CloneError;
use crate::layers::LayerError;

/// Workspaces that one fork makes.
pub(super) const MOST_FORKS: u64 = 16;

/// Idle times are kept as microseconds; a century is as good as never.
pub(super) const LONGEST_IDLE_SECS: u64 = 100 * 365 * 24 * 3600;

/// Why something was not done with a workspace.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkspaceError {
    #[error("workspace {0}")]
    Missing(String),
    #[error("snapshot {0}")]
    NoSnapshot(String),
    #[error("parent_workspace_id is required")]
    NoParent,
    #[error("another exec is in flight against this workspace")]
    Busy,
    #[error(
        "an agent lives in this workspace: end it first, with PATCH {{\"state\": \"ended\"}} of its agent, or DELETE"
    )]
    Inhabited,
    #[error(
        "memory_mb: an agent runs in this workspace, and the command joins its jail, whose memory they share: leave it out"
    )]
    GuestLimit,
    #[error(
        "session_id: an agent runs in this workspace under another session, and its jail's proxy knows no other"
    )]
    GuestSession,
    #[error("fork.count must be 1..={MOST_FORKS}")]
    ForkCount,
    #[error("idle_timeout_secs must be at most {LONGEST_IDLE_SECS}")]
    Idle,
    #[error("the domain {0} belongs to another workspace")]
    DomainTaken(String),
    #[error("flavor {0:?} is no longer available on this server")]
    FlavorGone(String),
    #[error("image {0:?} is no longer available on this server")]
    ImageGone(String),
    #[error(
        "its layers are too many and cannot be merged, because something in them cannot be told of \
         (see `left_out` of its snapshots): remove that, and begin a new workspace with the rest"
    )]
    Unmergeable,
    #[error("quota of workspaces: the tenant may have {0}")]
    WorkspaceQuota(u64),
    #[error(
        "quota of bytes: the tenant may keep {most} and keeps {kept}; delete snapshots or workspaces"
    )]
    ByteQuota { most: u64, kept: u64 },
    #[error("{0}")]
    Options(ApiError),
    #[error(transparent)]
    Clone(#[from] CloneError),
    #[error(transparent)]
    Exec(#[from] ExecError),
    #[error("the store failed")]
    Store(#[from] StoreError),
    #[error("layers could not be had")]
    Layer(#[from] LayerError),
    #[error("a stored configuration cannot be read")]
    Config(#[source] serde_json::Error),
}

impl From<AskError> for WorkspaceError {
    fn from(error: AskError) -> Self {
        Self::Exec(error.into())
    }
}

/// That there is no such workspace in sight.
pub(super) fn missing(id: &str) -> WorkspaceError {
    WorkspaceError::Missing(shortened(id))
}

/// That there is no such snapshot in sight.
pub(super) fn no_snapshot(id: &str) -> WorkspaceError {
    WorkspaceError::NoSnapshot(shortened(id))
}

/// An id as sent, short enough to be said back.
fn shortened(id: &str) -> String {
    id.chars().take(64).collect()
}

impl From<CloneError> for ApiError {
    fn from(error: CloneError) -> Self {
        match error {
            CloneError::Exec(error) => error.into(),
            error => Self::new(Kind::Invalid, error),
        }
    }
}

impl From<WorkspaceError> for ApiError {
    fn from(error: WorkspaceError) -> Self {
        use WorkspaceError as E;
        match error {
            E::Options(error) => error,
            E::Clone(error) => error.into(),
            E::Exec(error) => error.into(),
            E::Missing(_) | E::NoSnapshot(_) => Self::new(Kind::NotFound, error),
            E::Busy | E::Inhabited | E::Unmergeable | E::DomainTaken(_) | E::GuestSession => {
                Self::new(Kind::Conflict, error)
            }
            E::GuestLimit
            | E::NoParent
            | E::ForkCount
            | E::Idle
            | E::FlavorGone(_)
            | E::ImageGone(_) => Self::new(Kind::Invalid, error),
            E::WorkspaceQuota(_) | E::ByteQuota { .. } => Self::new(Kind::TooMany, error),
            E::Store(_) | E::Layer(_) | E::Config(_) => Self::internal(error),
        }
    }
}
