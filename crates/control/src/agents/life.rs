//! An agent that is up: how it comes up, stands still, and goes on.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::header::{AUTHORIZATION, HeaderValue};
use axum::http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use ids::WorkspaceId;
use jiff::Timestamp;
use secret::Secret;
use serde_json::{Value, json};
use store::{AgentRow, Whose, Workspace};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::access::AgentKey;
use super::door::{self, HttpClient};
use super::error::AgentError;
use super::service::{Agents, random_token};
use super::wire::{AgentState, StartAgent};
use crate::exec::{Asker, ExecOptions, ExecResult, Resident};
use crate::workspaces::NewResident;

/// How long a fresh agent may take to answer.
const PATIENCE: Duration = Duration::from_secs(15);

/// How often it is asked meanwhile.
const ASKED_EVERY: Duration = Duration::from_millis(2);

/// How long one that runs may take to say whether it works.
const SOON: Duration = Duration::from_secs(5);

/// How often one that owes an answer is asked whether it is there.
const ASKED_AGAIN: Duration = Duration::from_secs(15);

/// So often in a row it may not say so, before it counts as one that does nothing.
const SILENCES: u32 = 3;

/// The most that such an answer is read of.
const ANSWER_BYTES: usize = 1 << 20;

/// Of the agent's last words, this much is told.
const LAST_WORDS: usize = 600;

/// Memory, processes and processors where the caller names none: a coding agent is a large program.
const MEMORY_MB: u64 = 2048;
const PIDS: u64 = 512;
const CPU_PERCENT: u64 = 200;

/// An agent that runs, or stands still.
#[derive(Debug)]
pub(crate) struct Life {
    pub(super) key: AgentKey,
    /// Of the token that clients open it with.
    pub(super) token_hash: Vec<u8>,
    pub(super) jail: i64,
    asker: Asker,
    pub(super) client: HttpClient,
    /// What the agent itself wants to hear; no client knows it.
    token: Secret,
    uses: Mutex<Uses>,
}

#[derive(Debug)]
struct Uses {
    /// Requests that are not at their end.
    open: usize,
    last: Instant,
    /// Nobody enters, because it is about to be paused.
    closed: bool,
    /// How often in a row it did not say whether it works.
    silent: u32,
    /// Whether its end was asked for.
    ending: bool,
}

/// That somebody is asking. Dropped with the end of the answer.
#[derive(Debug)]
pub(crate) struct Use(Arc<Life>);

impl Use {
    /// For what goes on beside the answer.
    pub(super) fn share(&self) -> Self {
        self.0.uses().open += 1;
        Self(Arc::clone(&self.0))
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        let mut uses = self.0.uses();
        uses.open -= 1;
        uses.last = Instant::now();
    }
}

impl Uses {
    fn new() -> Self {
        Self { open: 0, last: Instant::now(), closed: false, silent: 0, ending: false }
    }
}

impl Life {
    /// As the agent wants to be asked.
    pub(super) fn authorization(&self) -> Option<HeaderValue> {
        let mut value = HeaderValue::from_str(&format!("Bearer {}", self.token.expose())).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// Says that somebody asks; `None` if it stands still, or has ended.
    pub(super) fn enter(self: &Arc<Self>) -> Option<Use> {
        let mut uses = self.uses();
        if uses.closed || self.stands_still() || self.has_ended() {
            return None;
        }
        uses.open += 1;
        Some(Use(Arc::clone(self)))
    }

    /// Whether it stands still, and the snapshot is taken.
    pub(super) fn is_paused(&self) -> bool {
        let closed = self.uses().closed;
        !closed && self.stands_still()
    }

    fn stands_still(&self) -> bool {
        self.asker.stands_still()
    }

    pub(super) fn has_ended(&self) -> bool {
        self.asker.has_ended()
    }

    /// Ends it, with all that runs in its jail.
    pub(super) async fn end(&self) {
        self.uses().ending = true;
        self.asker.kill();
        self.asker.ended().await;
    }

    /// From here on nobody enters. `since`: only if nobody has for so long; gives whether it is so.
    fn close(&self, since: Option<Duration>) -> bool {
        let mut uses = self.uses();
        let unused = |since| uses.open == 0 && uses.last.elapsed() >= since;
        uses.closed = since.is_none_or(unused);
        uses.closed
    }

    fn open_again(&self) {
        let mut uses = self.uses();
        uses.closed = false;
        uses.last = Instant::now();
    }

    fn uses(&self) -> MutexGuard<'_, Uses> {
        self.uses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the agent for something small.
    async fn ask(&self, path: &str) -> Option<(StatusCode, Value)> {
        let request = Request::get(format!("http://127.0.0.1:{}{path}", door::PORT))
            .header(AUTHORIZATION, self.authorization()?)
            .body(Body::empty());
        let response = self.client.request(request.ok()?).await.ok()?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES).collect().await.ok()?;
        Some((status, serde_json::from_slice(&body.to_bytes()).unwrap_or_default()))
    }

    /// Completes if it hangs: not while it works at something, be that for hours.
    pub(super) async fn unresponsive(&self) {
        let mut silent = 0;
        while silent < SILENCES {
            sleep(ASKED_AGAIN).await;
            // One that stands still is not asked: that would let it go on.
            let answers = self.stands_still()
                || matches!(timeout(SOON, self.ask("/v1/health")).await, Ok(Some(_)));
            silent = if answers { 0 } else { silent + 1 };
        }
    }

    /// Whether a coding agent of it owes an answer, for all one knows.
    async fn works(&self) -> bool {
        match timeout(SOON, self.ask("/v1/acp")).await {
            Ok(Some((StatusCode::OK, answer))) => {
                self.uses().silent = 0;
                let servers = answer["servers"].as_array();
                servers.into_iter().flatten().any(|server| server["busy"] == true)
            }
            _ => {
                let mut uses = self.uses();
                uses.silent += 1;
                uses.silent < SILENCES
            }
        }
    }
}

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
                life.asker.resume().await?;
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
        let life = Arc::new(Life {
            key: AgentKey { workspace: workspace.id.clone(), tenant: workspace.tenant.clone() },
            token_hash: row.token_hash.clone(),
            jail: begun.id,
            client: door::client(asker.clone()),
            asker,
            token,
            uses: Mutex::new(Uses::new()),
        });
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
        let Some(result) = result.filter(|_| !life.uses().ending) else { return };
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

    /// Puts agents aside that nobody asks, and that do nothing, for as long as their workspaces say.
    pub(crate) async fn pause_idle(&self) -> Result<u64, AgentError> {
        let idle = self.0.parts.store.idle_workspaces(Timestamp::now()).await?;
        // All at once: one that takes its time to answer must not keep the others of their turn.
        let mut pauses = JoinSet::new();
        for life in self.lives() {
            self.note_thaw(&life).await?;
            let workspace = idle.iter().find(|other| other.id == life.key.workspace);
            if let Some(workspace) = workspace.cloned() {
                let this = self.clone();
                pauses.spawn(async move { this.pause_or_tell(&life, &workspace).await });
            }
        }
        Ok(pauses.join_all().await.into_iter().map(u64::from).sum())
    }

    /// A paused workspace whose jail was made to go on is not paused.
    async fn note_thaw(&self, life: &Life) -> Result<(), AgentError> {
        let (store, id) = (&self.0.parts.store, &life.key.workspace);
        let row = store.workspace(Whose::Everyone, id).await?;
        if row.is_some_and(|row| row.paused_at.is_some()) && !life.stands_still() {
            store.touch_workspace(id, Timestamp::now()).await?;
        }
        Ok(())
    }

    async fn pause_or_tell(&self, life: &Arc<Life>, workspace: &Workspace) -> bool {
        self.pause(life, workspace).await.unwrap_or_else(|error| {
            tracing::error!(
                workspace = %workspace.id,
                error = &error as &dyn std::error::Error,
                "an idle agent was not put aside"
            );
            false
        })
    }

    async fn pause(&self, life: &Arc<Life>, workspace: &Workspace) -> Result<bool, AgentError> {
        let after = workspace.config["idle_timeout_secs"].as_u64().map(Duration::from_secs);
        let Some(after) = after.filter(|after| !after.is_zero()) else { return Ok(false) };
        if life.has_ended() || life.is_paused() || life.works().await {
            return Ok(false);
        }
        self.stand_still(life, Some(after)).await
    }

    /// Stops an agent's jail, and takes a snapshot. Gives whether it was done: a guest is a reason not to, and so
    /// is a use, if `since` says how long there must have been none.
    async fn stand_still(
        &self,
        life: &Arc<Life>,
        since: Option<Duration>,
    ) -> Result<bool, AgentError> {
        // All but the last of it is copied while the agent works: whoever asks meanwhile is served, and it may be ended.
        let held = Arc::new(Mutex::new(None));
        let stop = {
            let (this, life, held) = (self.clone(), Arc::clone(life), Arc::clone(&held));
            move || {
                // Not waited for: who has the gate may wait for the workspace.
                let Some(gate) = this.gate_if_free(&life.key.workspace) else { return false };
                let closed = life.close(since);
                *held.lock().unwrap_or_else(PoisonError::into_inner) = Some(gate);
                closed
            }
        };
        let stop = Box::new(stop);
        let stopped = self.0.parts.workspaces.pause_resident(&life.key.workspace, stop).await;
        let done = matches!(stopped, Ok(true));
        // From here on it is the jail that says whether it stands still: a command may let it go on.
        life.open_again();
        if !done && life.stands_still() {
            life.asker.resume().await?;
        }
        drop(held);
        Ok(stopped?)
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
