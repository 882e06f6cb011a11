//! Watching what a job writes to disk, where its tenant has a quota of bytes.
//!
//! The kernel has no quota for a directory that every file system knows, so it is measured: once in a while
//! as the job runs, and at its end.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use ids::{TenantId, TreeId};
use snapshot::Measured;
use store::Store;

use super::job::{Ground, Job};
use crate::layers::{LayerError, blocking};

/// Between two measurements; and how many times as long as one takes.
const EACH: Duration = Duration::from_secs(2);
const SHARE: u32 = 10;

/// Measures one job's tree.
#[derive(Debug)]
pub(super) struct Meter {
    tree: TreeId,
    files: PathBuf,
    tenant: TenantId,
    most: u64,
    store: Store,
}

impl Meter {
    /// For a job that writes to a tree, if its tenant has a quota.
    pub(super) fn of(job: &Job, most: Option<u64>, store: &Store) -> Option<Self> {
        let layers = match &job.ground {
            Ground::Fresh => return None,
            Ground::Layered { layers, .. } | Ground::LayeredOutput { layers } => layers,
        };
        let tree = layers.upper.file_name()?.to_str()?.parse().ok()?;
        let (files, tenant) = (layers.upper.join("files"), job.tenant.clone());
        Some(Self { tree, files, tenant, most: most?, store: store.clone() })
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
        if let Err(error) = self.judge().await {
            tracing::error!(error = &error as &dyn std::error::Error, "a tree was not measured");
        }
    }

    async fn judge(&self) -> Result<Option<String>, LayerError> {
        let files = self.files.clone();
        let Measured { bytes, incomplete } = blocking(move || snapshot::measure(&files)).await?;
        let counted = self.store.note_written(&self.tree, bytes).await?;
        // A tree that no row knows ends with its job.
        let own = if counted { 0 } else { bytes };
        let kept = self.store.usage(&self.tenant).await?.bytes + own;
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
