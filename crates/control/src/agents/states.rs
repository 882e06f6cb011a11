//! How an agent comes up, is woken, and ends.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use ids::WorkspaceId;
use jiff::Timestamp;
use serde_json::json;
use store::{AgentRow, Whose, Workspace};
use tokio::time::{sleep, timeout};

use super::access::AgentKey;
use super::door;
use super::error::AgentError;
use super::life::{Life, Use};
use super::service::{Agents, random_token};
use super::wire::{AgentState, StartAgent};
use crate::exec::{ExecOptions, ExecResult, Resident};
use crate::workspaces::NewResident;

/// How long a fresh agent may take to answer.
const PATIENCE: Duration = Duration::from_secs(15);

/// How often it is asked meanwhile.
const ASKED_EVERY: Duration = Duration::from_millis(2);

/// Of the agent's last words, this much is told.
const LAST_WORDS: usize = 600;

/// Memory, processes and processors where the caller names none: a coding agent is a large program.
const MEMORY_MB: u64 = 2048;
const PIDS: u64 = 512;
const CPU_PERCENT: u64 = 200;

impl Agents {
    /// Somebody asks the agent of a workspace for something, if it is up.
    pub(super) fn enter_at_once(&self, id: &WorkspaceId) -> Option<(Arc<Life>, Use)> {
        let life = self.life(id)?;
        let held = life.enter()?;
        Some((life, held))
    }

    /// The same, and it is woken, or started again, if it must be.
    pub(super) async fn enter(
        &self,
        workspace: &Workspace,
    ) -> Result<(Arc<Life>, Use), AgentError> {
        if let Some(entered) = self.enter_at_once(&workspace.id) {
            return Ok(entered);
        }
        let (this, workspace) = (self.clone(), workspace.clone());
        let up = self.0.parts.executor.tasks().spawn(async move { this.wake(&workspace).await });
        up.await.map_err(|_| AgentError::Silent)?
    }

    async fn wake(&self, workspace: &Workspace) -> Result<(Arc<Life>, Use), AgentError> {
        let _gate = self.gate(&workspace.id).await;
        if let Some(life) = self.life(&workspace.id).filter(|life| !life.has_ended()) {
            if life.is_paused() {
                life.resume().await?;
                life.open_again();
                self.0.parts.store.touch_workspace(&workspace.id, Timestamp::now()).await?;
            }
            if let Some(held) = life.enter() {
                return Ok((life, held));
            }
        }
        let row = self.row(&workspace.id).await?;
        let body = serde_json::from_value(row.settings.clone()).map_err(AgentError::Settings)?;
        // What it was is what is left of it: the workspace, with its home.
        let life = self.bring_up(workspace, &row, &body).await?;
        let held = life.enter().ok_or(AgentError::Silent)?;
        Ok((life, held))
    }

    /// Starts an agent over its workspace, and waits until it answers.
    pub(super) async fn bring_up(
        &self,
        workspace: &Workspace,
        row: &AgentRow,
        body: &StartAgent,
    ) -> Result<Arc<Life>, AgentError> {
        let parts = &self.0.parts;
        let session = self.session_of(row).await?;
        let (directory, program) = parts.program.brought().await.map_err(AgentError::Program)?;
        let token = random_token();
        let port = door::PORT.to_string();
        let mut arguments: Vec<String> =
            ["agent", "server", "--port", &port, "--log", "warn", "--agent-idle-secs", "0"]
                .map(str::to_owned)
                .into();
        // What a jail is given is there when it starts: nothing is downloaded by it.
        arguments.push("--require-preinstall".to_owned());
        let names = session.iter().flat_map(|session| &session.environment).chain(&body.env);
        for (name, _) in names {
            arguments.push(format!("--pass-env={name}"));
        }
        let mut environment = body.env.clone();
        environment.push(("SANDBOX_AGENT_TOKEN".to_owned(), token.expose().to_owned()));
        let options = ExecOptions {
            memory_mb: Some(body.memory_mb.unwrap_or(MEMORY_MB)),
            max_pids: Some(body.max_pids.unwrap_or(PIDS)),
            cpu_percent: Some(body.cpu_percent.unwrap_or(CPU_PERCENT)),
            network: body.network.clone(),
            ..ExecOptions::default()
        };
        let flavors = Self::flavors_of(body);
        let new = NewResident {
            program,
            arguments,
            environment,
            session: session.clone(),
            options,
            flavors,
            directories: vec![directory],
        };
        let resident = parts.workspaces.resident(workspace, new);
        let job = resident.await?;
        let path = parts.executor.search_path(&job.settings)?;
        let begun = parts.executor.begin_run(job).await?;
        let resident = Resident {
            jail: begun.id,
            pid: begun.pid,
            session: session.map(|session| session.id),
            enforced: begun.enforced.clone(),
            path,
        };
        let asker = parts.live.running(&workspace.id).ok_or(AgentError::Silent)?;
        let key = AgentKey { workspace: workspace.id.clone(), tenant: workspace.tenant.clone() };
        let life = Arc::new(Life::new(key, row.token_hash.clone(), begun.id, asker, token));
        let mut end = Box::pin(begun.wait());
        let up = tokio::select! {
            up = timeout(PATIENCE, answers(&life)) => up.map_err(|_| AgentError::Silent),
            ended = &mut end => Err(AgentError::Died(last_words(ended?))),
        };
        // Dropping the end of one that is silent ends it.
        up?;
        parts.live.settle(&workspace.id, resident);
        parts.store.note_agent_end(&workspace.id, None).await?;
        self.keep_life(Arc::clone(&life));
        let (this, watched) = (self.clone(), Arc::clone(&life));
        parts.executor.tasks().spawn(async move {
            let ended = end.await;
            this.note_end(&watched, ended.ok()).await;
        });
        Ok(life)
    }

    /// An agent has ended, whether or not somebody has ended it.
    async fn note_end(&self, life: &Arc<Life>, result: Option<ExecResult>) {
        self.drop_life(life);
        // Without a result the server stops.
        let Some(result) = result.filter(|_| !life.is_ending()) else { return };
        let reason = match &result {
            ExecResult { oom_killed: true, .. } => "oom_killed",
            ExecResult { error: Some(_), .. } => "quota",
            _ => "exited",
        };
        let ended = json!({
            "reason": reason, "exit_code": result.exit_code, "at": Timestamp::now().to_string(),
        });
        if let Err(error) =
            self.0.parts.store.note_agent_end(&life.key.workspace, Some(&ended)).await
        {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "an agent's end was not noted"
            );
        }
    }

    /// Lets an agent run, stand still, or end; its row, token and session stay.
    pub(crate) async fn set_state(
        &self,
        workspace: &Workspace,
        state: AgentState,
    ) -> Result<(), AgentError> {
        let (this, workspace) = (self.clone(), workspace.clone());
        let done = self.0.parts.executor.tasks().spawn(async move {
            if state == AgentState::Running {
                return this.wake(&workspace).await.map(drop);
            }
            let gate = this.gate(&workspace.id).await;
            this.row(&workspace.id).await?;
            let life = this.life(&workspace.id).filter(|life| !life.has_ended());
            match (state, life) {
                (AgentState::Ended, Some(life)) => life.end().await,
                (AgentState::Paused, Some(life)) => {
                    drop(gate);
                    let stands = life.is_paused() || this.stand_still(&life, None).await?;
                    return if stands { Ok(()) } else { Err(AgentError::Guest) };
                }
                _ => {}
            }
            Ok(())
        });
        done.await.map_err(|_| AgentError::Silent)?
    }

    /// For a workspace that goes: its agent goes with it.
    pub(crate) async fn end_if_any(&self, id: &WorkspaceId) -> Result<(), AgentError> {
        if self.0.parts.store.agent(Whose::Everyone, id).await?.is_none() {
            return Ok(());
        }
        match self.end(id).await {
            Ok(()) | Err(AgentError::Missing(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Until a fresh agent answers.
async fn answers(life: &Life) {
    while !matches!(life.ask("/v1/health").await, Some((StatusCode::OK, _))) {
        sleep(ASKED_EVERY).await;
    }
}

fn last_words(result: ExecResult) -> String {
    if result.oom_killed {
        return "it ran out of memory: give it more with memory_mb".to_owned();
    }
    let text = result.stderr.trim();
    let from = text.char_indices().rev().nth(LAST_WORDS).map_or(0, |(at, _)| at);
    format!("exit code {}: {}", result.exit_code, &text[from..])
}
