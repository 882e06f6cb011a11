//! When an agent stands still, and how.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use store::{Whose, Workspace};
use tokio::task::JoinSet;

use super::error::AgentError;
use super::life::Life;
use super::service::Agents;

impl Agents {
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
    pub(super) async fn stand_still(
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
            life.resume().await?;
        }
        drop(held);
        Ok(stopped?)
    }
}
