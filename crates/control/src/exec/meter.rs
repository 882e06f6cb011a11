//! Watching what a job writes to disk, where its tenant has a quota of bytes.
//!
//! The kernel has no quota for a directory that every file system knows, so it is measured: once in a while
//! as the job runs, and at its end.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ids::{TenantId, TreeId};
use snapshot::Measured;
use store::Store;

use super::job::{Ground, Job};
use crate::layers::{LayerError, blocking};

/// Between two measurements; and how many times as long as one takes.
const EACH: Duration = Duration::from_secs(2);
const SHARE: u32 = 10;

/// What jobs of each tenant have written to trees that end with them. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Passing(Arc<Mutex<HashMap<TenantId, HashMap<TreeId, u64>>>>);

impl Passing {
    /// Notes one tree; gives the sum.
    fn note(&self, tenant: &TenantId, tree: &TreeId, bytes: u64) -> u64 {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let trees = all.entry(tenant.clone()).or_default();
        trees.insert(tree.clone(), bytes);
        trees.values().sum()
    }

    fn sum(&self, tenant: &TenantId) -> u64 {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(tenant).map_or(0, |trees| trees.values().sum())
    }

    fn forget(&self, tenant: &TenantId, tree: &TreeId) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(trees) = all.get_mut(tenant) {
            trees.remove(tree);
            if trees.is_empty() {
                all.remove(tenant);
            }
        }
    }
}

/// Measures one job's tree.
#[derive(Debug)]
pub(super) struct Meter {
    tree: TreeId,
    files: PathBuf,
    tenant: TenantId,
    most: u64,
    store: Store,
    passing: Passing,
    /// What has no name any more, and is there as long as the job has it open.
    nameless: AtomicU64,
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.passing.forget(&self.tenant, &self.tree);
    }
}

impl Meter {
    /// For a job that writes to a tree, if its tenant has a quota.
    pub(super) fn of(
        job: &Job,
        most: Option<u64>,
        store: &Store,
        passing: &Passing,
    ) -> Option<Self> {
        let layers = match &job.ground {
            Ground::Fresh => return None,
            Ground::Layered { layers, .. } | Ground::LayeredOutput { layers } => layers,
        };
        let tree = layers.upper.file_name()?.to_str()?.parse().ok()?;
        let (files, tenant) = (layers.upper.join("files"), job.tenant.clone());
        let (passing, nameless) = (passing.clone(), AtomicU64::new(0));
        Some(Self { tree, files, tenant, most: most?, store: store.clone(), passing, nameless })
    }

    /// Notes how much the job has open that no look at its tree would find.
    pub(super) fn note_nameless(&self, bytes: u64) {
        self.nameless.store(bytes, Ordering::Relaxed);
    }

    /// Completes when the quota is used up; gives why the job must end. Never, without a meter.
    pub(super) async fn used_up(this: Option<&Self>) -> String {
        let Some(meter) = this else { return std::future::pending().await };
        let mut pause = EACH;
        loop {
            tokio::time::sleep(pause).await;
            let began = Instant::now();
            match meter.judge().await {
                Ok(None) => {}
                Ok(Some(why)) => return why,
                // What cannot be measured must not grow.
                Err(error) => {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "a tree was not measured"
                    );
                    return "quota of bytes: what it wrote could not be measured".to_owned();
                }
            }
            pause = EACH.max(began.elapsed() * SHARE);
        }
    }

    /// Notes what was written in the end, for the next one's admission.
    pub(super) async fn note(&self) {
        self.note_nameless(0);
        if let Err(error) = self.judge().await {
            tracing::error!(error = &error as &dyn std::error::Error, "a tree was not measured");
        }
    }

    async fn judge(&self) -> Result<Option<String>, LayerError> {
        let files = self.files.clone();
        let Measured { bytes, incomplete } = blocking(move || snapshot::measure(&files)).await?;
        let bytes = bytes + self.nameless.load(Ordering::Relaxed);
        // What cannot be measured is not free.
        let bytes = if incomplete { bytes.max(self.most) } else { bytes };
        // A tree that no row knows ends with its job.
        let passing = if self.store.note_written(&self.tree, bytes).await? {
            self.passing.sum(&self.tenant)
        } else {
            self.passing.note(&self.tenant, &self.tree, bytes)
        };
        let kept = self.store.usage(&self.tenant).await?.bytes + passing;
        let most = self.most;
        Ok(if incomplete {
            Some("quota of bytes: it wrote what cannot be measured: directories nested too deep, or closed to their owner".to_owned())
        } else if kept > most {
            Some(format!("quota of bytes: the tenant may keep {most} and keeps {kept}"))
        } else {
            None
        })
    }
}
