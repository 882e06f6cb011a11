//! The tools, one a thing that the platform does.

use rmcp::handler::server::wrapper::Parameters;
use rmcp::model::{CallToolResult, ContentBlock};
use rmcp::service::{RequestContext, RoleServer};
use rmcp::{ServerHandler, tool, tool_handler, tool_router};
use serde_json::{Value, json};

use super::files;
use super::wire::{
    CreateWorkspace, Diff, Exec, Fork, ListFiles, ListWorkspaces, ReadFile, Restore, RunCode,
    Snapshot, StartAgent, WorkspaceOnly, WriteFile,
};
use crate::client::connection::{Connection, part};

#[derive(Clone)]
pub(super) struct Tools {
    connection: Connection,
}

type Asking = RequestContext<RoleServer>;

#[tool_router]
impl Tools {
    pub(super) fn new(connection: Connection) -> Self {
        Self { connection }
    }

    #[tool(
        description = "Run a program in a fresh jail and give its output. Nothing of it stays.",
        annotations(read_only_hint = false, destructive_hint = false, open_world_hint = false)
    )]
    async fn run_code(
        &self,
        Parameters(asked): Parameters<RunCode>,
        asking: Asking,
    ) -> CallToolResult {
        let body = given(json!({
            "code": asked.code, "language": asked.language, "timeout_secs": asked.timeout_secs,
            "memory_mb": asked.memory_mb, "network": network(&asked.allow_hosts),
        }));
        told(self.of(&asking).post("/v1/runs", &body).await.map(ended))
    }

    #[tool(
        description = "Make a workspace: files that stay from one command to the next, empty or of a repository."
    )]
    async fn workspace_create(
        &self,
        Parameters(asked): Parameters<CreateWorkspace>,
        asking: Asking,
    ) -> CallToolResult {
        let git = asked.git.map(|repo| given(json!({ "repo": repo, "ref": asked.git_ref })));
        let body = given(json!({
            "git": git, "label": asked.label, "flavors": asked.flavors,
            "network": network(&asked.allow_hosts),
        }));
        told(self.of(&asking).post("/v1/workspaces", &body).await.map(|made| workspace(&made)))
    }

    #[tool(description = "List workspaces, newest first.", annotations(read_only_hint = true))]
    async fn workspace_list(
        &self,
        Parameters(asked): Parameters<ListWorkspaces>,
        asking: Asking,
    ) -> CallToolResult {
        let mut query = vec![("limit", asked.limit.unwrap_or(50).to_string())];
        query.extend(asked.q.map(|q| ("q", q)));
        let listed = self.of(&asking).get("/v1/workspaces", &query).await;
        told(listed.map(|listed| {
            let rows = listed["rows"].as_array().into_iter().flatten();
            json!({ "workspaces": rows.map(workspace).collect::<Vec<_>>(), "total": listed["total"] })
        }))
    }

    #[tool(
        description = "Remove a workspace and end what runs in it. Its snapshots stay.",
        annotations(destructive_hint = true)
    )]
    async fn workspace_delete(
        &self,
        Parameters(asked): Parameters<WorkspaceOnly>,
        asking: Asking,
    ) -> CallToolResult {
        let done = async {
            let path = format!("/v1/workspaces/{}", part(&asked.workspace_id)?);
            self.of(&asking).delete(&path).await
        };
        told(done.await.map(|()| json!({ "deleted": asked.workspace_id })))
    }

    #[tool(
        description = "Run a shell command in a workspace, over the files that the last one left."
    )]
    async fn exec(&self, Parameters(asked): Parameters<Exec>, asking: Asking) -> CallToolResult {
        let body = given(json!({
            "cmd": "sh", "args": ["-c", asked.command], "stdin": asked.stdin,
            "timeout_secs": asked.timeout_secs,
        }));
        let done = async {
            let path = format!("/v1/workspaces/{}/exec", part(&asked.workspace_id)?);
            self.of(&asking).post_in_turn(&path, &body).await
        };
        told(done.await.map(ended))
    }

    #[tool(
        description = "Read a file of a workspace: as text, or in base64 if it is none.",
        annotations(read_only_hint = true)
    )]
    async fn read_file(
        &self,
        Parameters(asked): Parameters<ReadFile>,
        asking: Asking,
    ) -> CallToolResult {
        told(files::read(&self.of(&asking), &asked).await)
    }

    #[tool(
        description = "Write a file of a workspace, whole: the old one or the new one is there, never a part."
    )]
    async fn write_file(
        &self,
        Parameters(asked): Parameters<WriteFile>,
        asking: Asking,
    ) -> CallToolResult {
        told(files::write(&self.of(&asking), &asked).await)
    }

    #[tool(description = "List a directory of a workspace.", annotations(read_only_hint = true))]
    async fn list_files(
        &self,
        Parameters(asked): Parameters<ListFiles>,
        asking: Asking,
    ) -> CallToolResult {
        told(files::list(&self.of(&asking), &asked).await)
    }

    #[tool(description = "Take a snapshot of a workspace, also while something runs in it.")]
    async fn snapshot(
        &self,
        Parameters(asked): Parameters<Snapshot>,
        asking: Asking,
    ) -> CallToolResult {
        let body = given(json!({ "name": asked.name }));
        let taken = self.workspace_post(&asking, &asked.workspace_id, "snapshot", &body).await;
        told(taken.map(|taken| {
            picked(&taken, &["id", "workspace_id", "name", "created_at", "size_bytes", "files"])
        }))
    }

    #[tool(
        description = "Tell which files were added, changed and removed from one snapshot to another.",
        annotations(read_only_hint = true)
    )]
    async fn diff(&self, Parameters(asked): Parameters<Diff>, asking: Asking) -> CallToolResult {
        let found = async {
            let path = format!("/v1/snapshots/{}/diff", part(&asked.snapshot_id)?);
            self.of(&asking).get(&path, &[("against", asked.against.clone())]).await
        };
        told(found.await.map(|diff| {
            let paths = |list: &Value, entry: fn(&Value) -> &Value| -> Vec<Value> {
                let entries = list.as_array().into_iter().flatten().map(entry);
                entries
                    .map(|entry| {
                        json!(format!("/{}/{}", text(&entry["root"]), text(&entry["path"])))
                    })
                    .collect()
            };
            json!({
                "added": paths(&diff["added"], |entry| entry),
                "changed": paths(&diff["changed"], |entry| &entry["after"]),
                "removed": paths(&diff["removed"], |entry| entry),
                "totals": diff["totals"], "truncated": diff["truncated"],
            })
        }))
    }

    #[tool(
        description = "Put a workspace back to one of its snapshots. What was written since is gone.",
        annotations(destructive_hint = true)
    )]
    async fn restore(
        &self,
        Parameters(asked): Parameters<Restore>,
        asking: Asking,
    ) -> CallToolResult {
        let body = json!({ "snapshot_id": asked.snapshot_id });
        let done = self.workspace_post(&asking, &asked.workspace_id, "restore", &body).await;
        told(done.map(|restored| workspace(&restored)))
    }

    #[tool(
        description = "Make workspaces that begin as this one is now, in constant time: to try several ways at once."
    )]
    async fn fork(&self, Parameters(asked): Parameters<Fork>, asking: Asking) -> CallToolResult {
        let body = given(json!({ "count": asked.count.unwrap_or(1), "label": asked.label }));
        let forked = self.workspace_post(&asking, &asked.workspace_id, "fork", &body).await;
        told(forked.map(|forked| {
            let forks = forked["forks"].as_array().into_iter().flatten();
            json!({ "forks": forks.map(workspace).collect::<Vec<_>>(), "snapshot_id": forked["snapshot_id"] })
        }))
    }

    #[tool(
        description = "Start a sandbox agent in a workspace, for coding agents that are driven over ACP. Gives the URL that \
            clients of a sandbox agent connect to, and a token that opens it and nothing else."
    )]
    async fn agent_start(
        &self,
        Parameters(asked): Parameters<StartAgent>,
        asking: Asking,
    ) -> CallToolResult {
        let services = (!asked.services.is_empty()).then_some(asked.services);
        let body = given(json!({ "services": services, "agents": asked.agents }));
        told(self.workspace_post(&asking, &asked.workspace_id, "agent", &body).await)
    }

    #[tool(
        description = "End the sandbox agent of a workspace. Its files stay.",
        annotations(destructive_hint = true)
    )]
    async fn agent_end(
        &self,
        Parameters(asked): Parameters<WorkspaceOnly>,
        asking: Asking,
    ) -> CallToolResult {
        let done = async {
            let path = format!("/v1/workspaces/{}/agent", part(&asked.workspace_id)?);
            self.of(&asking).delete(&path).await
        };
        told(done.await.map(|()| json!({ "ended": asked.workspace_id })))
    }

    /// The server, with the key of whoever asks: over HTTP that is in their request, else our own.
    fn of(&self, asking: &Asking) -> Connection {
        let parts = asking.extensions.get::<axum::http::request::Parts>();
        let key = parts.and_then(|parts| parts.headers.get(axum::http::header::AUTHORIZATION));
        match key.and_then(|key| key.to_str().ok()) {
            Some(key) => self.connection.with_key(key.strip_prefix("Bearer ").unwrap_or(key)),
            None => self.connection.clone(),
        }
    }

    async fn workspace_post(
        &self,
        asking: &Asking,
        id: &str,
        what: &str,
        body: &Value,
    ) -> anyhow::Result<Value> {
        let path = format!("/v1/workspaces/{}/{what}", part(id)?);
        self.of(asking).post(&path, body).await
    }
}

#[tool_handler(
    name = "agentjail",
    instructions = "Runs code and commands in Linux jails that hold no real key and reach no host that is not allowed. \
        `run_code` is for one program; a workspace keeps files from one command to the next, can be snapshotted, compared, \
        forked and put back. A coding agent can live in a workspace: `agent_start`."
)]
impl ServerHandler for Tools {}

/// A result; or what went wrong, in words that a model can act on.
fn told(result: anyhow::Result<Value>) -> CallToolResult {
    match result {
        Ok(value) => CallToolResult::structured(value),
        Err(error) => CallToolResult::error(vec![ContentBlock::text(format!("{error:#}"))]),
    }
}

/// How a command ended, without what only operators read.
fn ended(result: Value) -> Value {
    let names = [
        "exit_code",
        "stdout",
        "stderr",
        "stdout_truncated",
        "stderr_truncated",
        "timed_out",
        "oom_killed",
        "signal",
        "duration_ms",
        "error",
    ];
    let mut picked = picked(&result, &names);
    // What was refused tells what to allow.
    if let Some(refused) = result["network"]["refused"].as_array().filter(|all| !all.is_empty()) {
        picked["refused"] = json!(refused);
    }
    picked
}

fn workspace(row: &Value) -> Value {
    picked(row, &["id", "label", "git_repo", "git_ref", "created_at", "last_exec_at"])
}

fn picked(value: &Value, names: &[&str]) -> Value {
    let members = names.iter().filter_map(|name| {
        let member = value.get(*name).filter(|member| !member.is_null())?;
        Some(((*name).to_owned(), member.clone()))
    });
    Value::Object(members.collect())
}

/// Without what was left out.
fn given(mut body: Value) -> Value {
    if let Some(body) = body.as_object_mut() {
        body.retain(|_, value| !value.is_null());
    }
    body
}

fn network(hosts: &[String]) -> Option<Value> {
    (!hosts.is_empty()).then(|| json!({ "mode": "allowlist", "domains": hosts }))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
