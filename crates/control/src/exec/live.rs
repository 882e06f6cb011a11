//! What running rows show beyond what is stored.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::ask::Asker;
use super::capture::Tail;
use super::result::ResourceStats;

/// Live rows of the ledger, by id.
#[derive(Debug, Clone, Default)]
pub(crate) struct LiveRows(Arc<Mutex<Rows>>);

type Rows = HashMap<i64, (Live, Option<Asker>)>;

/// What a running row shows beyond what is stored.
#[derive(Debug, Clone, Default)]
pub(crate) struct Live {
    pub(crate) stats: Option<ResourceStats>,
    pub(crate) stdout: Tail,
    pub(crate) stderr: Tail,
}

impl LiveRows {
    pub(crate) fn get(&self, id: i64) -> Option<Live> {
        self.lock().get(&id).map(|(live, _)| live.clone())
    }

    pub(crate) fn count(&self) -> usize {
        self.lock().len()
    }

    pub(super) fn update(&self, id: i64, change: impl FnOnce(&mut Live)) {
        if let Some((live, _)) = self.lock().get_mut(&id) {
            change(live);
        }
    }

    pub(super) fn remove(&self, id: i64) -> Live {
        self.lock().remove(&id).map(|(live, _)| live).unwrap_or_default()
    }

    pub(super) fn insert(&self, id: i64, asker: Option<Asker>) {
        self.lock().insert(id, (Live::default(), asker));
    }

    pub(super) fn asker(&self, id: i64) -> Option<Asker> {
        self.lock().get(&id).and_then(|(_, asker)| asker.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Rows> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
