//! What happens by itself: idle workspaces are put aside, old snapshots removed, garbage collected.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use store::Store;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::agents::Agents;
use crate::config::{Persistence, SnapshotRetention};
use crate::workspaces::Workspaces;

/// Keeps house until told to stop.
pub(crate) async fn keep_house(
    persistence: Persistence,
    (workspaces, agents): (Workspaces, Agents),
    store: Store,
    stop: CancellationToken,
) {
    // What a former server left.
    let layers = workspaces.layers();
    for result in [layers.collect().await, layers.collect_objects().await, layers.catch_up().await]
    {
        report(result, "what a former server left was not put in order");
    }
    tokio::join!(
        every(persistence.idle_check_secs, &stop, async || {
            report(workspaces.pause_idle().await.map(drop), "idle workspaces were not looked for");
            report(agents.pause_idle().await.map(drop), "idle agents were not looked for");
        }),
        every(persistence.snapshots.tick_secs, &stop, async || {
            let removed = remove_old(&store, persistence.snapshots).await;
            report(removed, "old snapshots were not removed");
            report(workspaces.layers().collect().await, "garbage was not collected");
        }),
    );
}

/// Does something every so often; 0 is never.
async fn every(secs: u64, stop: &CancellationToken, work: impl AsyncFn()) {
    if secs == 0 {
        return;
    }
    let mut ticks = interval(Duration::from_secs(secs));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        work().await;
    }
}

async fn remove_old(store: &Store, retention: SnapshotRetention) -> Result<(), store::StoreError> {
    let SnapshotRetention { max_age_secs, max_count, .. } = retention;
    if max_age_secs.is_none() && max_count.is_none() {
        return Ok(());
    }
    // An age before all time is no age.
    let before = max_age_secs.and_then(|secs| {
        Timestamp::now().checked_sub(SignedDuration::from_secs(i64::try_from(secs).ok()?)).ok()
    });
    let removed = store.delete_old_snapshots(before, max_count).await?;
    if removed > 0 {
        tracing::info!(removed, "removed old snapshots");
    }
    Ok(())
}

fn report<E: std::error::Error + 'static>(result: Result<(), E>, what: &str) {
    if let Err(error) = result {
        tracing::error!(error = &error as &dyn std::error::Error, "{what}");
    }
}
