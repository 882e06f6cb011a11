//! What tools are given.

use rmcp::schemars::{self, JsonSchema};
use serde::Deserialize;

#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct RunCode {
    /// The program's text, at most 1 MiB.
    pub(super) code: String,
    /// `python`, `javascript` (the default) or `bash`.
    pub(super) language: Option<String>,
    /// Seconds, from 1 to 3600; default 300.
    pub(super) timeout_secs: Option<u64>,
    /// Default 512.
    pub(super) memory_mb: Option<u64>,
    /// Hosts that it may reach, such as `pypi.org` or `*.example.com:8080`. Default: none.
    #[serde(default)]
    pub(super) allow_hosts: Vec<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct CreateWorkspace {
    /// A repository to begin with, by its HTTPS address.
    pub(super) git: Option<String>,
    /// A branch, a tag, or a commit's full hash.
    pub(super) git_ref: Option<String>,
    pub(super) label: Option<String>,
    /// Runtimes that the server has, by name.
    #[serde(default)]
    pub(super) flavors: Vec<String>,
    /// Hosts that its commands may reach. Default: none.
    #[serde(default)]
    pub(super) allow_hosts: Vec<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct ListWorkspaces {
    /// Found anywhere in id, label or repository.
    pub(super) q: Option<String>,
    /// Default 50.
    pub(super) limit: Option<u64>,
}

#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct WorkspaceOnly {
    pub(super) workspace_id: String,
}

#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Exec {
    pub(super) workspace_id: String,
    /// A line for `sh`, run in `/workspace`.
    pub(super) command: String,
    /// What the command reads.
    pub(super) stdin: Option<String>,
    /// Seconds, from 1 to 3600; default: the workspace's.
    pub(super) timeout_secs: Option<u64>,
}

#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct ReadFile {
    pub(super) workspace_id: String,
    /// Absolute, or from `/workspace` on.
    pub(super) path: String,
    /// The first byte; default 0.
    pub(super) offset: Option<u64>,
    /// Bytes, at most 524288, which is the default.
    pub(super) length: Option<u64>,
}

#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct WriteFile {
    pub(super) workspace_id: String,
    /// Absolute, or from `/workspace` on; directories above it are made.
    pub(super) path: String,
    /// The file's text, whole.
    pub(super) content: String,
}

#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct ListFiles {
    pub(super) workspace_id: String,
    /// A directory; default `/workspace`.
    pub(super) path: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Snapshot {
    pub(super) workspace_id: String,
    pub(super) name: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Diff {
    /// The later snapshot.
    pub(super) snapshot_id: String,
    /// The earlier one.
    pub(super) against: String,
}

#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Restore {
    pub(super) workspace_id: String,
    /// A snapshot of this workspace.
    pub(super) snapshot_id: String,
}

#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Fork {
    pub(super) workspace_id: String,
    /// From 1 to 16; default 1.
    pub(super) count: Option<u64>,
    pub(super) label: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct StartAgent {
    pub(super) workspace_id: String,
    /// Services whose phantom tokens it gets, such as `anthropic` or `openai`: real keys stay on the server.
    #[serde(default)]
    pub(super) services: Vec<String>,
    /// Coding agents that must be installed on the server; default: all there are.
    pub(super) agents: Option<Vec<String>>,
}
