//! The rules of agents: which there are, what they are made of, and their end.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex as StdMutex, MutexGuard, PoisonError, Weak};

use ids::{SessionId, WorkspaceId};
use secret::{Secret, Vault};
use store::{AgentRow, Store, Whose, Workspace};
use tokio::sync::{Mutex, OwnedMutexGuard, oneshot};

use super::access::{AgentKey, TOKEN_PREFIX};
use super::error::AgentError;
use super::life::Life;
use super::program::Program;
use super::wire::StartAgent;
use crate::exec::{Executor, SessionAccess, flavors};
use crate::sessions::{Minted, NewSession, SessionError, Sessions};
use crate::workspaces::{Live, Workspaces};

/// What the flavor of a coding agent begins with.
const FLAVOR: &str = "agent-";

/// Agents of all tenants. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Agents(pub(super) Arc<AgentsInner>);

/// What agents are made of.
#[derive(Debug)]
pub(crate) struct AgentsParts {
    pub(crate) store: Store,
    pub(crate) vault: Arc<Vault>,
    pub(crate) workspaces: Workspaces,
    pub(crate) sessions: Sessions,
    pub(crate) executor: Executor,
    pub(crate) live: Live,
    pub(crate) flavors: PathBuf,
    pub(crate) program: Program,
}

#[derive(Debug)]
pub(super) struct AgentsInner {
    pub(super) parts: AgentsParts,
    /// Those that run, or stand still.
    lives: StdMutex<Lives>,
    /// Held by whoever begins or ends one.
    gates: StdMutex<HashMap<WorkspaceId, Weak<Mutex<()>>>>,
}

/// By workspace, and by what opens them: a request to one that is up asks the store for nothing.
#[derive(Debug, Default)]
struct Lives {
    of: HashMap<WorkspaceId, Arc<Life>>,
    keys: HashMap<Vec<u8>, AgentKey>,
}

impl Lives {
    fn remove(&mut self, id: &WorkspaceId) -> Option<Arc<Life>> {
        let life = self.of.remove(id)?;
        self.keys.remove(&life.token_hash);
        Some(life)
    }
}

/// For whom an agent is started, and with what session made for it.
#[derive(Debug)]
pub(crate) struct NewAgent {
    pub(crate) workspace: Workspace,
    pub(crate) body: StartAgent,
    /// One that is there already.
    pub(crate) session: Option<SessionId>,
    /// One to make.
    pub(crate) new_session: Option<(crate::caller::Role, NewSession)>,
}

/// An agent that answers, and its token.
#[derive(Debug)]
pub(crate) struct Begun {
    pub(crate) token: Secret,
    pub(crate) session: Option<SessionId>,
}

/// An agent, and whether it is up.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) row: AgentRow,
    pub(crate) body: StartAgent,
    pub(crate) life: Option<Arc<Life>>,
}

impl Agents {
    pub(crate) fn new(parts: AgentsParts) -> Self {
        let (lives, gates) = (StdMutex::default(), StdMutex::default());
        Self(Arc::new(AgentsInner { parts, lives, gates }))
    }

    /// Makes an agent and starts it. What fails leaves neither row nor session, and so does what nobody hears of:
    /// its token would be lost.
    pub(crate) async fn start(&self, new: NewAgent) -> Result<Begun, AgentError> {
        let (this, id) = (self.clone(), new.workspace.id.clone());
        let (told, hear) = oneshot::channel();
        self.0.parts.executor.tasks().spawn(async move {
            let started = this.start_now(new).await;
            if let Err(Ok(_)) = told.send(started)
                && let Err(error) = this.end_now(&id).await
            {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "an agent that nobody waited for was not ended"
                );
            }
        });
        hear.await.map_err(|_| AgentError::Silent)?
    }

    async fn start_now(&self, new: NewAgent) -> Result<Begun, AgentError> {
        let NewAgent { workspace, mut body, session, new_session } = new;
        let _gate = self.gate(&workspace.id).await;
        let parts = &self.0.parts;
        if parts.store.agent(Whose::Everyone, &workspace.id).await?.is_some() {
            return Err(AgentError::Present);
        }
        body.agents = Some(self.installed(body.agents.take())?);
        let tenant = workspace.tenant.clone();
        let minted = new_session.map(|(role, new)| parts.sessions.mint(tenant.clone(), role, new));
        let minted = minted.transpose()?;
        let made = minted.as_ref().map(|minted| minted.session.id.clone());
        let token = random_token();
        let row = AgentRow {
            workspace: workspace.id.clone(),
            tenant,
            created_at: store::now(),
            token_hash: parts.vault.api_key_hash(token.expose()),
            owns_session: made.is_some(),
            session: session.or(made),
            settings: serde_json::to_value(&body).map_err(AgentError::Settings)?,
            ended: None,
        };
        self.keep(&row, minted).await?;
        if let Err(error) = self.bring_up(&workspace, &row, &body).await {
            parts.store.delete_agent(&workspace.id).await?;
            self.withdraw_session(&row);
            return Err(error);
        }
        Ok(Begun { token, session: row.session })
    }

    /// Both rows, or neither.
    async fn keep(&self, row: &AgentRow, minted: Option<Minted>) -> Result<(), AgentError> {
        let parts = &self.0.parts;
        let _admission = match &minted {
            Some(_) => Some(parts.sessions.admission(&row.tenant).await?),
            None => None,
        };
        let session = minted.as_ref().map(|minted| (&minted.session, minted.tokens.as_slice()));
        if !parts.store.insert_agent(row, session).await? {
            return Err(AgentError::Present);
        }
        if let Some(minted) = minted {
            parts.sessions.opened(minted)?;
        }
        Ok(())
    }

    /// A session that is there already, for an agent of a workspace.
    pub(super) async fn shared_session(
        &self,
        whose: Whose<'_>,
        named: &str,
        workspace: &Workspace,
    ) -> Result<SessionId, AgentError> {
        let found = self.0.parts.sessions.access(whose, named).await;
        let (access, tenant) = found.map_err(|error| match error {
            SessionError::Expired => AgentError::SessionExpired(named.to_owned()),
            error => error.into(),
        })?;
        if tenant != workspace.tenant {
            return Err(AgentError::OtherTenant(named.to_owned()));
        }
        if self.0.parts.store.is_of_agent(&access.id).await? {
            return Err(AgentError::AgentsSession(named.to_owned()));
        }
        Ok(access.id)
    }

    /// Which coding agents a workspace gets: those that are named, or all.
    fn installed(&self, named: Option<Vec<String>>) -> Result<Vec<String>, AgentError> {
        let all = flavors::list(&self.0.parts.flavors).map_err(crate::exec::ExecError::from)?;
        let all: Vec<String> = all
            .into_iter()
            .filter_map(|(name, _)| name.strip_prefix(FLAVOR).map(str::to_owned))
            .collect();
        let Some(mut named) = named else { return Ok(all) };
        for (index, name) in named.iter().enumerate() {
            // The built-in one is a part of the program.
            if name != "mock" && !all.contains(name) {
                let name: String = name.chars().take(64).collect();
                return Err(AgentError::NotInstalled { index, name });
            }
        }
        named.retain(|name| name != "mock");
        named.sort();
        named.dedup();
        Ok(named)
    }

    /// The flavors of coding agents.
    pub(super) fn flavors_of(body: &StartAgent) -> Vec<String> {
        body.agents.iter().flatten().map(|agent| format!("{FLAVOR}{agent}")).collect()
    }

    /// The agent of a workspace that is in sight.
    pub(crate) async fn get(&self, workspace: &Workspace) -> Result<Found, AgentError> {
        let row = self.row(&workspace.id).await?;
        let body = serde_json::from_value(row.settings.clone()).map_err(AgentError::Settings)?;
        Ok(Found { life: self.life(&workspace.id), row, body })
    }

    /// What an agent was started with, if there is one.
    pub(crate) async fn settings(
        &self,
        id: &WorkspaceId,
    ) -> Result<Option<StartAgent>, AgentError> {
        let row = self.0.parts.store.agent(Whose::Everyone, id).await?;
        let body = row.map(|row| serde_json::from_value(row.settings));
        body.transpose().map_err(AgentError::Settings)
    }

    /// Ends an agent: its jail, its token, and its session if that was made for it.
    pub(crate) async fn end(&self, workspace: &WorkspaceId) -> Result<(), AgentError> {
        let (this, id) = (self.clone(), workspace.clone());
        let done = self.0.parts.executor.tasks().spawn(async move { this.end_now(&id).await });
        done.await.map_err(|_| AgentError::Silent)?
    }

    async fn end_now(&self, id: &WorkspaceId) -> Result<(), AgentError> {
        let _gate = self.gate(id).await;
        let row = self.row(id).await?;
        let life = lock(&self.0.lives).remove(id);
        // From here on its token opens nothing.
        let deleted = self.0.parts.store.delete_agent(id).await;
        if deleted.is_ok() {
            self.withdraw_session(&row);
        }
        if let Some(life) = life {
            life.end().await;
        }
        deleted?;
        Ok(())
    }

    /// Its row has gone with the agent's; its tokens stop working at once.
    fn withdraw_session(&self, row: &AgentRow) {
        if let Some(session) = row.session.as_ref().filter(|_| row.owns_session) {
            self.0.parts.sessions.withdraw(session);
        }
    }

    /// Whose token it is.
    pub(crate) async fn authenticate(&self, token: &str) -> Result<Option<AgentKey>, AgentError> {
        let hash = self.0.parts.vault.api_key_hash(token);
        if let Some(key) = lock(&self.0.lives).keys.get(&hash) {
            return Ok(Some(key.clone()));
        }
        let row = self.0.parts.store.agent_of_token(&hash).await?;
        Ok(row.map(|row| AgentKey { workspace: row.workspace, tenant: row.tenant }))
    }

    pub(super) async fn row(&self, id: &WorkspaceId) -> Result<AgentRow, AgentError> {
        let row = self.0.parts.store.agent(Whose::Everyone, id).await?;
        row.ok_or_else(|| AgentError::Missing(id.to_string()))
    }

    /// The session of an agent, as its jail gets it.
    pub(super) async fn session_of(
        &self,
        row: &AgentRow,
    ) -> Result<Option<SessionAccess>, AgentError> {
        let Some(session) = &row.session else { return Ok(None) };
        match self.0.parts.sessions.access(Whose::Of(&row.tenant), session.as_str()).await {
            Ok((access, _)) => Ok(Some(access)),
            // Not made anew: whoever closed it wants its holder to have no keys.
            Err(SessionError::Missing(_) | SessionError::Expired) => Err(AgentError::SessionGone),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until nobody else begins or ends the agent of a workspace.
    pub(super) async fn gate(&self, id: &WorkspaceId) -> OwnedMutexGuard<()> {
        self.gate_of(id).lock_owned().await
    }

    /// The same, at once or not at all.
    pub(super) fn gate_if_free(&self, id: &WorkspaceId) -> Option<OwnedMutexGuard<()>> {
        self.gate_of(id).try_lock_owned().ok()
    }

    fn gate_of(&self, id: &WorkspaceId) -> Arc<Mutex<()>> {
        let mut gates = lock(&self.0.gates);
        gates.retain(|_, gate| gate.strong_count() > 0);
        let gate = gates.get(id).and_then(Weak::upgrade).unwrap_or_default();
        gates.insert(id.clone(), Arc::downgrade(&gate));
        gate
    }

    /// The agent of a workspace, if it is up.
    pub(super) fn life(&self, id: &WorkspaceId) -> Option<Arc<Life>> {
        lock(&self.0.lives).of.get(id).cloned()
    }

    pub(super) fn lives(&self) -> Vec<Arc<Life>> {
        lock(&self.0.lives).of.values().cloned().collect()
    }

    pub(super) fn keep_life(&self, life: Arc<Life>) {
        let mut lives = lock(&self.0.lives);
        lives.keys.insert(life.token_hash.clone(), life.key.clone());
        lives.of.insert(life.key.workspace.clone(), life);
    }

    /// Forgets one that has ended, unless there is another by now.
    pub(super) fn drop_life(&self, life: &Arc<Life>) {
        let (mut lives, id) = (lock(&self.0.lives), &life.key.workspace);
        if lives.of.get(id).is_some_and(|other| Arc::ptr_eq(other, life)) {
            lives.remove(id);
        }
    }
}

impl AgentKey {
    /// Whether the token is of an agent of this workspace.
    pub(super) fn opens(&self, workspace: &str) -> bool {
        self.workspace.as_str() == workspace
    }
}

/// A new token for an agent.
pub(super) fn random_token() -> Secret {
    let random = Vault::random_master_key();
    let hex: String = random.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    Secret::new(format!("{TOKEN_PREFIX}{hex}"))
}

fn lock<T>(mutex: &StdMutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
