//! Workspaces over the wire.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::domains::WorkspaceDomain;
use crate::agents::{AgentStarted, StartAgent};
use crate::exec::ExecOptions;
use crate::git::GitSpec;

/// What a workspace is made of. All of it may be left out.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct CreateWorkspace {
    /// Repositories to begin with.
    pub(crate) git: Option<GitSpec>,
    /// A friendly one is made up if there is none.
    pub(crate) label: Option<String>,
    /// Seconds without a command after which the workspace is put aside; 0, the default, is never.
    #[schema(minimum = 0)]
    pub(crate) idle_timeout_secs: Option<u64>,
    /// Host names that the gateway sends here.
    pub(crate) domains: Option<Vec<WorkspaceDomain>>,
}

/// The body of a creation, for the OpenAPI document.
#[derive(Debug, Deserialize, ToSchema)]
#[expect(dead_code, reason = "described, not read: the two parts are read by themselves")]
pub(crate) struct CreateWorkspaceBody {
    #[serde(flatten)]
    workspace: CreateWorkspace,
    #[serde(flatten)]
    options: ExecOptions,
}

/// A workspace.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct WorkspaceView {
    pub(super) id: String,
    pub(super) tenant_id: String,
    pub(super) created_at: String,
    pub(super) deleted_at: Option<String>,
    /// What was written since the last snapshot, on the server's disk. For admins; else empty.
    pub(super) source_dir: String,
    pub(super) output_dir: String,
    /// Limits and network of its commands.
    pub(super) config: Value,
    pub(super) git_repo: Option<String>,
    pub(super) git_ref: Option<String>,
    pub(super) label: String,
    pub(super) domains: Vec<WorkspaceDomain>,
    pub(super) last_exec_at: Option<String>,
    pub(super) paused_at: Option<String>,
    /// What the next command of a paused workspace goes on from.
    pub(super) auto_snapshot: Option<String>,
}

/// A page of workspaces, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct WorkspaceList {
    pub(super) rows: Vec<WorkspaceView>,
    /// On all pages.
    pub(super) total: u64,
    pub(super) limit: u32,
    pub(super) offset: u64,
}

/// What of a workspace can be changed.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct PatchWorkspace {
    /// Blank, null or left out: a new one is made up.
    pub(super) label: Option<String>,
}

/// A command for a workspace.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct WorkspaceExec {
    /// Looked up in `PATH` if it holds no slash.
    pub(crate) cmd: String,
    #[serde(default)]
    pub(crate) args: Vec<String>,
    /// Default: the workspace's; from 1 to 3600.
    pub(crate) timeout_secs: Option<u64>,
    /// Default: the workspace's; at most 8192.
    pub(crate) memory_mb: Option<u64>,
    /// Pairs of name and value; the last word on a name counts.
    #[serde(default)]
    #[schema(value_type = Vec<Vec<String>>)]
    pub(crate) env: Vec<(String, String)>,
    /// A session whose environment, and phantom proxy, the command gets.
    pub(crate) session_id: Option<String>,
    /// What the command reads.
    pub(crate) stdin: Option<String>,
}

/// How often to fork.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct ForkWorkspace {
    /// From 1 to 16.
    #[schema(minimum = 1, maximum = 16)]
    pub(super) count: u64,
    /// The forks are called `<label>-<i>`.
    pub(super) label: Option<String>,
    /// Gives each fork an agent of its own, with a session, tokens and process of its own, that goes on with the
    /// conversation. What is left out is as of the agent that is there.
    pub(super) agent: Option<StartAgent>,
}

/// A workspace that was made by a fork.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Fork {
    #[serde(flatten)]
    pub(super) workspace: WorkspaceView,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) agent: Option<AgentStarted>,
}

/// What forking made.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Forked {
    pub(super) parent: WorkspaceView,
    pub(super) forks: Vec<Fork>,
    /// What they began from.
    pub(super) snapshot_id: String,
    /// How long a running command stood still; null if none ran.
    pub(super) freeze_ms: Option<f64>,
}

/// From what to make a workspace.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct FromSnapshot {
    pub(super) snapshot_id: String,
    /// The workspace that the snapshot was taken of: who knows it may have what is in it.
    pub(super) parent_workspace_id: String,
    pub(super) label: Option<String>,
}

/// To what to go back.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct RestoreWorkspace {
    /// A snapshot of this workspace.
    pub(super) snapshot_id: String,
}

/// How to call a snapshot.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct TakeSnapshot {
    pub(super) name: Option<String>,
}
