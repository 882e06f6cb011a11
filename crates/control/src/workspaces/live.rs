//! Which workspaces have a command running, and who may change their trees.

use std::collections::HashMap;
use std::sync::{Arc, Mutex as StdMutex, MutexGuard, PoisonError};

use ids::WorkspaceId;
use tokio::sync::{Mutex, Notify, OwnedMutexGuard, oneshot};

use crate::exec::Asker;

/// All workspaces that somebody is busy with. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Live(Arc<StdMutex<HashMap<WorkspaceId, Arc<Desk>>>>);

/// One workspace's.
#[derive(Debug, Default)]
struct Desk {
    /// Held by whoever changes which trees the workspace stands on.
    gate: Arc<Mutex<()>>,
    running: StdMutex<Option<Asker>>,
    ended: Notify,
}

/// The right to change a workspace's trees, and to look at what runs over them.
#[derive(Debug)]
pub(super) struct Turn {
    desk: Arc<Desk>,
    live: Live,
    id: WorkspaceId,
    _gate: OwnedMutexGuard<()>,
}

/// That a command runs. Dropped when nothing of its jail is left.
#[derive(Debug)]
pub(super) struct Busy {
    desk: Arc<Desk>,
    ended: Option<oneshot::Sender<()>>,
}

impl Live {
    /// Waits for one's turn.
    pub(super) async fn turn(&self, id: &WorkspaceId) -> Turn {
        let desk = self.desk(id);
        let gate = Arc::clone(&desk.gate).lock_owned().await;
        Turn { desk, live: self.clone(), id: id.clone(), _gate: gate }
    }

    /// Takes one's turn if nobody else has it and nothing runs.
    pub(super) fn turn_if_idle(&self, id: &WorkspaceId) -> Option<Turn> {
        let desk = self.desk(id);
        let gate = Arc::clone(&desk.gate).try_lock_owned().ok()?;
        let turn = Turn { desk, live: self.clone(), id: id.clone(), _gate: gate };
        turn.running().is_none().then_some(turn)
    }

    /// Through which the running command's owner is asked, if there is one.
    pub(crate) fn running(&self, id: &WorkspaceId) -> Option<Asker> {
        let desk = self.lock().get(id).cloned()?;
        lock(&desk.running).clone()
    }

    fn desk(&self, id: &WorkspaceId) -> Arc<Desk> {
        Arc::clone(self.lock().entry(id.clone()).or_default())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<WorkspaceId, Arc<Desk>>> {
        lock(&self.0)
    }
}

impl Turn {
    pub(super) fn running(&self) -> Option<Asker> {
        lock(&self.desk.running).clone()
    }

    /// Says that a command runs; what is given second hears of its end.
    pub(super) fn begin(&self, asker: Asker) -> (Busy, oneshot::Receiver<()>) {
        *lock(&self.desk.running) = Some(asker);
        let (ended, hear) = oneshot::channel();
        (Busy { desk: Arc::clone(&self.desk), ended: Some(ended) }, hear)
    }

    /// Waits until nothing runs.
    pub(super) async fn idle(&self) {
        loop {
            let ended = self.desk.ended.notified();
            if self.running().is_none() {
                return;
            }
            ended.await;
        }
    }
}

impl Drop for Turn {
    /// A desk that nobody sits at is cleared away.
    fn drop(&mut self) {
        let mut desks = self.live.lock();
        // This one, and the one in the table.
        if Arc::strong_count(&self.desk) == 2 && lock(&self.desk.running).is_none() {
            desks.remove(&self.id);
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        *lock(&self.desk.running) = None;
        self.desk.ended.notify_waiters();
        if let Some(ended) = self.ended.take() {
            let _ = ended.send(());
        }
    }
}

fn lock<T>(mutex: &StdMutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
