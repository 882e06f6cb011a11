//! Which workspaces have a command running, and who may change their trees.

use std::collections::HashMap;
use std::sync::{Arc, Mutex as StdMutex, MutexGuard, PoisonError};

use ids::WorkspaceId;
use tokio::sync::{Mutex, Notify, OwnedMutexGuard, oneshot};

use super::error::WorkspaceError;
use crate::exec::{Asker, Resident};

/// All workspaces that somebody is busy with. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Live(Arc<StdMutex<HashMap<WorkspaceId, Arc<Desk>>>>);

/// One workspace's.
#[derive(Debug, Default)]
struct Desk {
    /// Held by whoever changes which trees the workspace stands on.
    gate: Arc<Mutex<()>>,
    running: StdMutex<Option<Running>>,
    ended: Notify,
}

/// What runs over a workspace.
#[derive(Debug)]
struct Running {
    asker: Asker,
    /// Who lives there, if others may come beside.
    resident: Option<Resident>,
    /// Whether a guest is there.
    guest: bool,
}

/// The right to change a workspace's trees, and to look at what runs over them.
#[derive(Debug)]
pub(super) struct Turn {
    desk: Arc<Desk>,
    live: Live,
    id: WorkspaceId,
    _gate: OwnedMutexGuard<()>,
}

/// That a guest is there. Dropped when nothing of its command is left.
#[derive(Debug)]
pub(super) struct Visit(Arc<Desk>);

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
        lock(&desk.running).as_ref().map(|running| running.asker.clone())
    }

    /// Says who lives in what runs now: from here on, guests may come.
    pub(crate) fn settle(&self, id: &WorkspaceId, resident: Resident) {
        if let Some(desk) = self.lock().get(id)
            && let Some(running) = lock(&desk.running).as_mut()
        {
            running.resident = Some(resident);
        }
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
        lock(&self.desk.running).as_ref().map(|running| running.asker.clone())
    }

    /// An error if something runs: what.
    pub(super) fn must_be_free(&self) -> Result<(), WorkspaceError> {
        match lock(&self.desk.running).as_ref() {
            None => Ok(()),
            Some(Running { resident: Some(_), .. }) => Err(WorkspaceError::Inhabited),
            Some(Running { resident: None, .. }) => Err(WorkspaceError::Busy),
        }
    }

    /// Who lives there and lets guests in, if nobody else is one.
    pub(super) fn visit(&self) -> Option<(Resident, Asker, Visit)> {
        let mut running = lock(&self.desk.running);
        let running = running.as_mut().filter(|running| !running.guest)?;
        let resident = running.resident.clone()?;
        running.guest = true;
        Some((resident, running.asker.clone(), Visit(Arc::clone(&self.desk))))
    }

    /// Whether a guest is there.
    pub(super) fn has_guest(&self) -> bool {
        lock(&self.desk.running).as_ref().is_some_and(|running| running.guest)
    }

    /// Says that a command runs; what is given second hears of its end.
    pub(super) fn begin(&self, asker: Asker) -> (Busy, oneshot::Receiver<()>) {
        *lock(&self.desk.running) = Some(Running { asker, resident: None, guest: false });
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

impl Drop for Visit {
    fn drop(&mut self) {
        if let Some(running) = lock(&self.0.running).as_mut() {
            running.guest = false;
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
