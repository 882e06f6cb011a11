//! A workspace at one moment: snapshots, forks, restores, pauses.
//!
//! Each is one change of the store, made with the workspace's turn in hand, and made to its end once
//! it has begun: what a caller who hangs up leaves half done, nobody would finish.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ids::{SnapshotId, TreeId, WorkspaceId};
use jiff::{SignedDuration, Timestamp};
use snapshot::{Hot, Mirror};
use store::{Change, NewLayer, Snapshot, StoreError, Whose, Workspace};

use super::capture::{CaptureError, Captured, Stop, captured};
use super::error::{MOST_FORKS, WorkspaceError, no_snapshot};
use super::labels;
use super::live::Turn;
use super::service::Workspaces;
use crate::exec::{AskError, Asker};
use crate::layers::{Chain, Scratch, blocking};

/// Layers below a workspace, at most: what is mounted over them must find room, too.
const MOST_SEALED: usize = 120;

/// A workspace and its forks.
#[derive(Debug)]
pub(crate) struct Family {
    pub(crate) parent: Workspace,
    pub(crate) forks: Vec<Workspace>,
    pub(crate) snapshot: Snapshot,
    /// How long what ran stood still.
    pub(crate) freeze: Option<Duration>,
}

/// What a moment of a workspace became.
#[derive(Debug)]
struct Taken {
    layer: TreeId,
    new_layer: Option<NewLayer>,
    /// The workspace afterwards, if it changed.
    workspace: Option<Workspace>,
    freeze: Option<Duration>,
    /// Keeps what is made until the store knows it.
    scratch: Option<Scratch>,
    _chain: Chain,
}

impl Workspaces {
    /// Takes a snapshot, of a running command too.
    pub(crate) async fn snapshot(
        &self,
        whose: Whose<'_>,
        id: &str,
        name: Option<String>,
    ) -> Result<(Snapshot, Option<Duration>), WorkspaceError> {
        let workspace = self.get(whose, id).await?;
        let this = self.clone();
        self.whole(async move {
            let (workspace, turn) = this.in_turn(&workspace.id).await?;
            this.check_bytes(&workspace.tenant).await?;
            let taken = this.take(&workspace, &turn, None).await?;
            let snapshot = snapshot_of(&workspace, &taken.layer, name);
            let freeze = taken.freeze;
            this.commit(taken, Some(snapshot.clone()), Vec::new()).await?;
            drop(turn);
            this.layers().index(&snapshot.layer).await?;
            this.tend_later(snapshot.layer.clone());
            Ok((snapshot, freeze))
        })
        .await
    }

    /// Makes workspaces that begin as this one is now. What was written is not copied.
    pub(crate) async fn fork(
        &self,
        whose: Whose<'_>,
        id: &str,
        count: u64,
        label: Option<&str>,
    ) -> Result<Family, WorkspaceError> {
        if !(1..=MOST_FORKS).contains(&count) {
            return Err(WorkspaceError::ForkCount);
        }
        let workspace = self.get(whose, id).await?;
        let stem = labels::given(label).unwrap_or_else(|| format!("fork of {}", workspace.id));
        let this = self.clone();
        self.whole(async move {
            let (workspace, turn) = this.in_turn(&workspace.id).await?;
            this.check_bytes(&workspace.tenant).await?;
            let mut taken = this.take(&workspace, &turn, None).await?;
            let _admission = this.admission().await;
            this.check_count(&workspace.tenant, count).await?;
            let name = format!("fork-origin:{}", workspace.id);
            let snapshot = snapshot_of(&workspace, &taken.layer, Some(name));
            let forks: Vec<Workspace> = (0..count)
                .map(|n| child_of(&workspace, &taken.layer, format!("{stem}-{n}"), n))
                .collect();
            let (freeze, changed) = (taken.freeze, taken.workspace.clone());
            let parent = changed.unwrap_or(workspace);
            taken.workspace = taken.workspace.map(|_| parent.clone());
            this.commit(taken, Some(snapshot.clone()), forks.clone()).await?;
            drop(turn);
            this.tend_later(snapshot.layer.clone());
            Ok(Family { parent, forks, snapshot, freeze })
        })
        .await
    }

    /// Makes a workspace of a snapshot. The parent is the proof: whoever names it may have this.
    pub(crate) async fn create_from(
        &self,
        whose: Whose<'_>,
        snapshot: &str,
        parent: &str,
        label: Option<&str>,
    ) -> Result<Workspace, WorkspaceError> {
        let found = self.find_snapshot(whose, snapshot).await?;
        if parent.trim().is_empty() {
            return Err(WorkspaceError::NoParent);
        }
        let is_parent = found.workspace.as_ref().is_some_and(|id| id.as_str() == parent);
        let row = if is_parent { self.find(whose, parent).await? } else { None };
        let row = row.ok_or_else(|| no_snapshot(snapshot))?;
        let mut made = child_of(&row, &found.layer, String::new(), 0);
        made.label = labels::given(label).unwrap_or_else(|| labels::friendly(&made.id));
        let _admission = self.admission().await;
        self.check_count(&row.tenant, 1).await?;
        let change = Change { forks: vec![made.clone()], ..Change::default() };
        match self.store().change(&change).await {
            Ok(()) => Ok(made),
            // Deleted, with its layer, since it was looked up.
            Err(StoreError::Gone) => Err(no_snapshot(snapshot)),
            Err(error) => Err(error.into()),
        }
    }

    /// Puts a workspace back to one of its snapshots. What was written since is gone.
    pub(crate) async fn restore(
        &self,
        whose: Whose<'_>,
        id: &str,
        snapshot: &str,
    ) -> Result<Workspace, WorkspaceError> {
        let workspace = self.get(whose, id).await?;
        let found = self.find_snapshot(whose, snapshot).await?;
        if found.workspace.as_ref() != Some(&workspace.id) {
            return Err(no_snapshot(snapshot));
        }
        let this = self.clone();
        self.whole(async move {
            let (workspace, turn) = this.in_turn(&workspace.id).await?;
            turn.must_be_free()?;
            let left = workspace.upper.clone();
            let restored = Workspace {
                base: Some(found.layer),
                upper: TreeId::random(),
                paused_at: None,
                auto_snapshot: None,
                ..workspace
            };
            let change = Change { workspace: Some(restored.clone()), ..Change::default() };
            match this.store().change(&change).await {
                Ok(()) => {}
                Err(StoreError::Gone) => return Err(no_snapshot(found.id.as_str())),
                Err(error) => return Err(error.into()),
            }
            let trees = Arc::clone(this.layers().trees());
            blocking(move || trees.remove(&left)).await?;
            drop(turn);
            this.collect_later();
            Ok(restored)
        })
        .await
    }

    /// Copies what a workspace has written beyond its layers, as it is at one moment.
    pub(crate) async fn copy_upper(
        &self,
        id: &WorkspaceId,
        to: PathBuf,
    ) -> Result<(), WorkspaceError> {
        let (this, id) = (self.clone(), id.clone());
        self.whole(async move {
            let (workspace, turn) = match this.in_turn(&id).await {
                Err(WorkspaceError::Missing(_)) => return Ok(()),
                found => found?,
            };
            let scratch = match turn.running() {
                Some(running) => this.captured(&workspace, &turn, &running, None).await?,
                None => None,
            };
            let scratch = scratch.map(|captured| captured.scratch);
            let tree = scratch.as_ref().map_or(&workspace.upper, |scratch| &scratch.id);
            let from = this.layers().trees().files(tree);
            blocking(move || {
                if !from.exists() {
                    return Ok(());
                }
                std::fs::create_dir_all(to.join("files"))?;
                let done = Mirror::new(&from, &to.join("files"))?.pass(&Hot::All);
                done.map(drop)
            })
            .await?;
            Ok(())
        })
        .await
    }

    /// Puts workspaces aside that had no command for as long as they said.
    pub(crate) async fn pause_idle(&self) -> Result<u64, WorkspaceError> {
        let mut paused = 0;
        for workspace in self.store().idle_workspaces(Timestamp::now()).await? {
            let Some(turn) = self.live().turn_if_idle(&workspace.id) else { continue };
            // Nothing can begin now; what began and ended meanwhile shows.
            let still = self.store().idle_workspaces(Timestamp::now()).await?;
            let Some(workspace) = still.into_iter().find(|other| other.id == workspace.id) else {
                continue;
            };
            let this = self.clone();
            match self.whole(async move { this.pause(workspace, &turn, None).await }).await {
                Ok(()) => paused += 1,
                Err(error) => tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "an idle workspace was not paused"
                ),
            }
        }
        Ok(paused)
    }

    /// Puts a workspace aside in which something lives, which stands still from then on. Gives whether it was: a
    /// guest is a reason not to, and so is what `stop` says, which is asked when all but the last is copied.
    pub(crate) async fn pause_resident(
        &self,
        id: &WorkspaceId,
        stop: Stop,
    ) -> Result<bool, WorkspaceError> {
        let (this, id) = (self.clone(), id.clone());
        self.whole(async move {
            let (workspace, turn) = this.in_turn(&id).await?;
            if turn.has_guest() {
                return Ok(false);
            }
            let before = this.auto_snapshot_of(&workspace).await?;
            match this.pause(workspace, &turn, Some(stop)).await {
                Ok(()) => {}
                Err(WorkspaceError::Busy) => return Ok(false),
                Err(error) => return Err(error),
            }
            // A copy each time: the last one is enough.
            if let Some(before) = before
                && this.store().delete_snapshot(Whose::Everyone, &before).await?
            {
                this.collect_later();
            }
            Ok(true)
        })
        .await
    }

    /// The newest snapshot that a pause of a workspace has taken.
    async fn auto_snapshot_of(
        &self,
        workspace: &Workspace,
    ) -> Result<Option<SnapshotId>, WorkspaceError> {
        let name = auto_name(workspace);
        Ok(self.store().newest_snapshot_named(&workspace.id, &name).await?)
    }

    async fn pause(
        &self,
        workspace: Workspace,
        turn: &Turn,
        stop: Option<Stop>,
    ) -> Result<(), WorkspaceError> {
        let mut taken = self.take(&workspace, turn, stop).await?;
        let name = auto_name(&workspace);
        // Woken and not written to, it needs no other snapshot than the last time.
        let known = match &taken.new_layer {
            None => self.store().named_snapshot(&workspace.id, &name, &taken.layer).await?,
            Some(_) => None,
        };
        let snapshot = match known {
            Some(_) => None,
            None => Some(snapshot_of(&workspace, &taken.layer, Some(name))),
        };
        let base = taken.workspace.take().unwrap_or(workspace);
        taken.workspace = Some(Workspace {
            paused_at: Some(Timestamp::now()),
            auto_snapshot: known.or_else(|| snapshot.as_ref().map(|made| made.id.clone())),
            ..base
        });
        let layer = taken.layer.clone();
        self.commit(taken, snapshot, Vec::new()).await?;
        self.tend_later(layer);
        Ok(())
    }

    /// Waits for a workspace's turn; gives it as it is then.
    async fn in_turn(&self, id: &WorkspaceId) -> Result<(Workspace, Turn), WorkspaceError> {
        let turn = self.live().turn(id).await;
        Ok((self.get(Whose::Everyone, id.as_str()).await?, turn))
    }

    /// Copies what a running command has written; `None` if it has ended, and the workspace is idle.
    async fn captured(
        &self,
        workspace: &Workspace,
        turn: &Turn,
        running: &Asker,
        stop: Option<Stop>,
    ) -> Result<Option<Captured>, WorkspaceError> {
        let owner = self.owner_of(&workspace.tenant).await?;
        let parts = [("/workspace", "workspace"), ("/output", "output"), ("/home/agent", "home")];
        match captured(self.layers(), owner, &workspace.upper, running, &parts, stop).await {
            Ok(captured) => Ok(Some(captured)),
            Err(CaptureError::Ask(AskError::Ended)) => {
                turn.idle().await;
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Makes a layer of what a workspace is now.
    async fn take(
        &self,
        workspace: &Workspace,
        turn: &Turn,
        stop: Option<Stop>,
    ) -> Result<Taken, WorkspaceError> {
        let chain = self.chain(workspace).await?;
        if chain.layers.len() >= MOST_SEALED {
            return Err(WorkspaceError::Unmergeable);
        }
        let captured = match turn.running() {
            Some(running) => self.captured(workspace, turn, &running, stop).await?,
            None => None,
        };
        if let Some(Captured { scratch, freeze, .. }) = captured {
            let layer = scratch.id.clone();
            // A copy, on top of what is there.
            let bytes = self.check_more(&workspace.tenant, &layer).await?;
            return Ok(Taken {
                new_layer: Some(NewLayer { bytes, ..new_layer(workspace, layer.clone()) }),
                layer,
                workspace: None,
                freeze: Some(freeze),
                scratch: Some(scratch),
                _chain: chain,
            });
        }
        let (trees, upper) = (Arc::clone(self.layers().trees()), workspace.upper.clone());
        let unchanged = blocking(move || trees.is_empty(&upper)).await?;
        let (layer, new_layer, workspace) = match &workspace.base {
            Some(base) if unchanged => (base.clone(), None, None),
            _ => {
                let owner = self.owner_of(&workspace.tenant).await?;
                let (trees, upper) = (Arc::clone(self.layers().trees()), workspace.upper.clone());
                let alone = workspace.base.is_none();
                blocking(move || trees.make(&upper, owner, alone)).await?;
                let sealed = workspace.upper.clone();
                let after = Workspace {
                    base: Some(sealed.clone()),
                    upper: TreeId::random(),
                    ..workspace.clone()
                };
                (sealed.clone(), Some(new_layer(workspace, sealed)), Some(after))
            }
        };
        Ok(Taken { layer, new_layer, workspace, freeze: None, scratch: None, _chain: chain })
    }

    async fn commit(
        &self,
        taken: Taken,
        snapshot: Option<Snapshot>,
        forks: Vec<Workspace>,
    ) -> Result<(), WorkspaceError> {
        let Taken { new_layer, workspace, scratch, .. } = taken;
        let change = Change { layer: new_layer, workspace, snapshot, forks };
        self.store().change(&change).await?;
        if let Some(scratch) = scratch {
            scratch.keep();
        }
        Ok(())
    }

    async fn find_snapshot(&self, whose: Whose<'_>, id: &str) -> Result<Snapshot, WorkspaceError> {
        let parsed: SnapshotId = id.parse().map_err(|_| no_snapshot(id))?;
        let row = self.store().snapshot(whose, &parsed).await?;
        Ok(row.ok_or_else(|| no_snapshot(id))?.snapshot)
    }

    fn tend_later(&self, layer: TreeId) {
        let layers = self.layers().clone();
        self.tasks().spawn(async move {
            if let Err(error) = layers.tend(&layer).await {
                tracing::error!(
                    %layer,
                    error = &error as &dyn std::error::Error,
                    "a layer's manifest was not written; the next use will"
                );
            }
        });
    }
}

fn auto_name(workspace: &Workspace) -> String {
    format!("auto:{}", workspace.id)
}

fn new_layer(workspace: &Workspace, id: TreeId) -> NewLayer {
    NewLayer {
        id,
        tenant: workspace.tenant.clone(),
        parent: workspace.base.clone(),
        sealed_at: store::now(),
        bytes: None,
    }
}

fn snapshot_of(workspace: &Workspace, layer: &TreeId, name: Option<String>) -> Snapshot {
    Snapshot {
        id: SnapshotId::random(),
        tenant: workspace.tenant.clone(),
        workspace: Some(workspace.id.clone()),
        name,
        created_at: store::now(),
        layer: layer.clone(),
    }
}

/// A new workspace over a layer, with another's configuration and origin, and without its names.
fn child_of(parent: &Workspace, layer: &TreeId, label: String, number: u64) -> Workspace {
    // Those made together are listed in the order of their numbers.
    let later = SignedDuration::from_micros(i64::try_from(number).unwrap_or_default());
    Workspace {
        id: WorkspaceId::random(),
        created_at: store::now() + later,
        deleted_at: None,
        upper: TreeId::random(),
        base: Some(layer.clone()),
        label,
        domains: Vec::new(),
        last_exec_at: None,
        paused_at: None,
        auto_snapshot: None,
        ..parent.clone()
    }
}
