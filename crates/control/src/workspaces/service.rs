//! The rules of workspaces.

use std::sync::Arc;
use std::time::Duration;

use httpkit::ApiError;
use ids::{SnapshotId, TenantId, TreeId, WorkspaceId};
use jail::Access;
use jiff::{SignedDuration, Timestamp};
use snapshot::{Hot, Mirror};
use store::{Change, Domain, JailKind, NewLayer, Snapshot, Store, StoreError, Whose, Workspace};

use super::capture::{CaptureError, Captured, captured};
use super::config::{config, options};
use super::labels;
use super::live::{Live, Turn};
use crate::config::Quotas;
use crate::exec::{
    AskError, Asker, ExecError, Executor, Ground, Held, Input, Job, Program, SessionAccess,
    Settings, flavors,
};
use crate::git::{CloneError, Cloner, Destination, Repository};
use crate::layers::{Chain, LayerError, Layers, Scratch, blocking};

const MOST_FORKS: u64 = 16;

/// Idle times are kept as microseconds; a century is as good as never.
const LONGEST_IDLE_SECS: u64 = 100 * 365 * 24 * 3600;

/// Why something was not done with a workspace.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkspaceError {
    #[error("workspace {0}")]
    Missing(String),
    #[error("snapshot {0}")]
    NoSnapshot(String),
    #[error("parent_workspace_id is required")]
    NoParent,
    #[error("another exec is in flight against this workspace")]
    Busy,
    #[error("fork.count must be 1..={MOST_FORKS}")]
    ForkCount,
    #[error("idle_timeout_secs must be at most {LONGEST_IDLE_SECS}")]
    Idle,
    #[error("the domain {0} belongs to another workspace")]
    DomainTaken(String),
    #[error("flavor {0:?} is no longer available on this server")]
    FlavorGone(String),
    #[error("quota of workspaces: the tenant may have {0}")]
    WorkspaceQuota(u64),
    #[error(
        "quota of bytes: the tenant may keep {most} and keeps {kept}; delete snapshots or workspaces"
    )]
    ByteQuota { most: u64, kept: u64 },
    #[error("{0}")]
    Options(ApiError),
    #[error(transparent)]
    Clone(#[from] CloneError),
    #[error(transparent)]
    Exec(#[from] ExecError),
    #[error("the store failed")]
    Store(#[from] StoreError),
    #[error("layers could not be had")]
    Layer(#[from] LayerError),
    #[error("a stored configuration cannot be read")]
    Config(#[source] serde_json::Error),
}

impl From<AskError> for WorkspaceError {
    fn from(error: AskError) -> Self {
        Self::Exec(error.into())
    }
}

/// A workspace to make.
#[derive(Debug)]
pub(crate) struct NewWorkspace {
    pub(crate) tenant: TenantId,
    pub(crate) label: Option<String>,
    pub(crate) repositories: Vec<Repository>,
    pub(crate) idle_timeout_secs: u64,
    pub(crate) domains: Vec<Domain>,
    pub(crate) settings: Settings,
}

/// A command for a workspace.
#[derive(Debug)]
pub(crate) struct NewExec {
    pub(crate) program: String,
    pub(crate) arguments: Vec<String>,
    pub(crate) timeout_secs: Option<u64>,
    pub(crate) memory_mb: Option<u64>,
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) session: Option<SessionAccess>,
    pub(crate) stdin: Option<Input>,
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

/// Workspaces of all tenants. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Workspaces(Arc<WorkspacesParts>);

#[derive(Debug)]
pub(crate) struct WorkspacesParts {
    pub(crate) store: Store,
    pub(crate) layers: Layers,
    pub(crate) executor: Executor,
    pub(crate) cloner: Cloner,
    pub(crate) live: Live,
    pub(crate) flavors: std::path::PathBuf,
    pub(crate) quotas: Quotas,
    /// Creations under way count, too.
    pub(crate) admission: tokio::sync::Mutex<()>,
}

impl Workspaces {
    pub(crate) fn new(parts: WorkspacesParts) -> Self {
        Self(Arc::new(parts))
    }

    pub(crate) fn layers(&self) -> &Layers {
        &self.0.layers
    }

    /// The host user of a tenant's files.
    pub(crate) async fn owner_of(
        &self,
        tenant: &TenantId,
    ) -> Result<snapshot::Owner, WorkspaceError> {
        Ok(self.0.executor.owner_of(tenant).await?)
    }

    /// Clones repositories into a tree.
    pub(crate) async fn clone_all(
        &self,
        repositories: &[Repository],
        to: &Destination,
    ) -> Result<(), WorkspaceError> {
        Ok(self.0.cloner.clone_all(repositories, to).await?)
    }

    /// Makes a workspace. A clone that fails leaves nothing.
    pub(crate) async fn create(&self, new: NewWorkspace) -> Result<Workspace, WorkspaceError> {
        if new.idle_timeout_secs > LONGEST_IDLE_SECS {
            return Err(WorkspaceError::Idle);
        }
        flavors::find(&self.0.flavors, new.settings.flavors()).map_err(ExecError::from)?;
        self.check_bytes(&new.tenant).await?;
        self.check_count(&new.tenant, 1).await?;
        let owner = self.0.executor.owner_of(&new.tenant).await?;
        let scratch = self.0.layers.scratch(owner, true).await?;
        if !new.repositories.is_empty() {
            let layers = self.0.layers.overlay(&Chain::default(), &scratch.id);
            let to = Destination { tenant: new.tenant.clone(), layers };
            self.0.cloner.clone_all(&new.repositories, &to).await?;
        }
        let id = WorkspaceId::random();
        let first = new.repositories.first();
        let workspace = Workspace {
            label: labels::given(new.label.as_deref()).unwrap_or_else(|| labels::friendly(&id)),
            id,
            tenant: new.tenant,
            created_at: store::now(),
            deleted_at: None,
            upper: scratch.id.clone(),
            base: None,
            config: config(&new.settings, new.idle_timeout_secs),
            git_repo: first.map(|repository| repository.url.clone()),
            git_ref: first.and_then(|repository| repository.reference.clone()),
            domains: new.domains,
            last_exec_at: None,
            paused_at: None,
            auto_snapshot: None,
        };
        let _admission = self.0.admission.lock().await;
        self.check_count(&workspace.tenant, 1).await?;
        let inserted = self.0.store.insert_workspace(&workspace).await?;
        inserted.map_err(WorkspaceError::DomainTaken)?;
        scratch.keep();
        Ok(workspace)
    }

    /// A live workspace in sight.
    pub(crate) async fn get(
        &self,
        whose: Whose<'_>,
        id: &str,
    ) -> Result<Workspace, WorkspaceError> {
        let found = self.find(whose, id).await?;
        found.filter(|workspace| workspace.deleted_at.is_none()).ok_or_else(|| missing(id))
    }

    /// A workspace in sight, deleted or not.
    async fn find(&self, whose: Whose<'_>, id: &str) -> Result<Option<Workspace>, WorkspaceError> {
        let id: WorkspaceId = id.parse().map_err(|_| missing(id))?;
        Ok(self.0.store.workspace(whose, &id).await?)
    }

    pub(crate) async fn rename(
        &self,
        whose: Whose<'_>,
        id: &str,
        label: Option<&str>,
    ) -> Result<Workspace, WorkspaceError> {
        let workspace = self.get(whose, id).await?;
        let label =
            labels::given(label).unwrap_or_else(|| labels::friendly(&WorkspaceId::random()));
        self.0.store.rename_workspace(&workspace.id, &label).await?;
        Ok(Workspace { label, ..workspace })
    }

    /// Ends what runs in a workspace, and removes it. Its snapshots stay.
    pub(crate) async fn delete(&self, whose: Whose<'_>, id: &str) -> Result<(), WorkspaceError> {
        let workspace = self.get(whose, id).await?;
        let turn = self.0.live.turn(&workspace.id).await;
        if let Some(running) = turn.running() {
            running.kill().await;
            turn.idle().await;
        }
        let workspace = self.get(whose, id).await?;
        if !self.0.store.delete_workspace(&workspace.id, Timestamp::now()).await? {
            return Err(missing(id));
        }
        let (trees, upper) = (Arc::clone(self.0.layers.trees()), workspace.upper);
        blocking(move || trees.remove(&upper)).await?;
        drop(turn);
        self.collect_later();
        Ok(())
    }

    /// Ends a pause: something asks for the workspace.
    pub(crate) async fn wake(&self, workspace: &Workspace) -> Result<(), WorkspaceError> {
        if workspace.paused_at.is_some() {
            let _turn = self.0.live.turn(&workspace.id).await;
            self.0.store.touch_workspace(&workspace.id, Timestamp::now()).await?;
        }
        Ok(())
    }

    /// From a command to a job that holds the workspace while it runs.
    pub(crate) async fn job(
        &self,
        workspace: &Workspace,
        new: NewExec,
        kind: JailKind,
    ) -> Result<Job, WorkspaceError> {
        let turn = self.0.live.turn(&workspace.id).await;
        if turn.running().is_some() {
            return Err(WorkspaceError::Busy);
        }
        // As it is now: while we waited it may have been paused, restored or deleted.
        let workspace = self.get(Whose::Everyone, workspace.id.as_str()).await?;
        let settings = self.settings(&workspace, &new)?;
        self.check_flavors(&settings)?;
        self.check_bytes(&workspace.tenant).await?;
        let (chain, mut held) = (self.chain(&workspace).await?, Held::default());
        held.keep(self.0.layers.trees().pin(&workspace.upper));
        let owner = self.0.executor.owner_of(&workspace.tenant).await?;
        let (trees, upper, alone) =
            (Arc::clone(self.0.layers.trees()), workspace.upper.clone(), workspace.base.is_none());
        blocking(move || trees.make(&upper, owner, alone)).await?;
        let layers = self.0.layers.overlay(&chain, &workspace.upper);
        held.keep(chain);
        let place = self.0.executor.reserve(&workspace.tenant, 1)?.pop();
        let (asker, asks) = Asker::new();
        let (busy, ended) = turn.begin(asker);
        held.keep(busy);
        self.0.store.touch_workspace(&workspace.id, Timestamp::now()).await?;
        self.note_end(workspace.id.clone(), ended);
        let command: String = new.program.chars().take(256).collect();
        let label = format!("workspace:{}/{command}", workspace.id);
        let program = Program::Command { program: new.program, arguments: new.arguments };
        Ok(Job {
            session: new.session,
            environment: new.environment,
            stdin: new.stdin,
            ground: Ground::Layered { layers, workspace: Access::ReadWrite },
            held,
            place,
            asks: Some(asks),
            ..Job::new(workspace.tenant, kind, label, program, settings)
        })
    }

    /// Idleness counts from the end of a command.
    fn note_end(&self, id: WorkspaceId, ended: tokio::sync::oneshot::Receiver<()>) {
        let store = self.0.store.clone();
        self.0.executor.tasks().spawn(async move {
            drop(ended.await);
            if let Err(error) = store.note_exec_end(&id, Timestamp::now()).await {
                tracing::error!(
                    workspace = %id,
                    error = &error as &dyn std::error::Error,
                    "the end of a command was not noted"
                );
            }
        });
    }

    /// Takes a snapshot, of a running command too.
    pub(crate) async fn snapshot(
        &self,
        whose: Whose<'_>,
        id: &str,
        name: Option<String>,
    ) -> Result<(Snapshot, Option<Duration>), WorkspaceError> {
        let workspace = self.get(whose, id).await?;
        self.check_bytes(&workspace.tenant).await?;
        let turn = self.0.live.turn(&workspace.id).await;
        let workspace = self.get(whose, id).await?;
        let taken = self.take(&workspace, &turn).await?;
        let snapshot = snapshot_of(&workspace, &taken.layer, name);
        let freeze = taken.freeze;
        self.commit(taken, snapshot.clone(), Vec::new()).await?;
        drop(turn);
        self.tend(&snapshot.layer).await?;
        Ok((snapshot, freeze))
    }

    /// Makes workspaces that begin as this one is now. What was written is not copied.
    pub(crate) async fn fork(
        &self,
        whose: Whose<'_>,
        id: &str,
        count: u64,
        label: Option<&str>,
    ) -> Result<(Workspace, Vec<Workspace>, Snapshot, Option<Duration>), WorkspaceError> {
        if !(1..=MOST_FORKS).contains(&count) {
            return Err(WorkspaceError::ForkCount);
        }
        let workspace = self.get(whose, id).await?;
        self.check_bytes(&workspace.tenant).await?;
        let turn = self.0.live.turn(&workspace.id).await;
        let workspace = self.get(whose, id).await?;
        let taken = self.take(&workspace, &turn).await?;
        let _admission = self.0.admission.lock().await;
        self.check_count(&workspace.tenant, count).await?;
        let name = format!("fork-origin:{}", workspace.id);
        let snapshot = snapshot_of(&workspace, &taken.layer, Some(name));
        let stem = labels::given(label).unwrap_or_else(|| format!("fork of {}", workspace.id));
        let forks: Vec<Workspace> = (0..count)
            .map(|n| child_of(&workspace, &taken.layer, format!("{stem}-{n}"), n))
            .collect();
        let freeze = taken.freeze;
        self.commit(taken, snapshot.clone(), forks.clone()).await?;
        drop(turn);
        self.tend_later(snapshot.layer.clone());
        let parent = self.get(whose, id).await?;
        Ok((parent, forks, snapshot, freeze))
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
        let row = row.ok_or_else(|| WorkspaceError::NoSnapshot(shortened(snapshot)))?;
        let _admission = self.0.admission.lock().await;
        self.check_count(&row.tenant, 1).await?;
        let mut made = child_of(&row, &found.layer, String::new(), 0);
        made.label = labels::given(label).unwrap_or_else(|| labels::friendly(&made.id));
        let change = Change { forks: vec![made.clone()], ..Change::default() };
        self.0.store.change(&change).await?;
        Ok(made)
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
            return Err(WorkspaceError::NoSnapshot(shortened(snapshot)));
        }
        let turn = self.0.live.turn(&workspace.id).await;
        if turn.running().is_some() {
            return Err(WorkspaceError::Busy);
        }
        let workspace = self.get(whose, id).await?;
        let left = workspace.upper.clone();
        let restored = Workspace {
            base: Some(found.layer),
            upper: TreeId::random(),
            paused_at: None,
            auto_snapshot: None,
            ..workspace
        };
        let change = Change { workspace: Some(restored.clone()), ..Change::default() };
        self.0.store.change(&change).await?;
        let trees = Arc::clone(self.0.layers.trees());
        blocking(move || trees.remove(&left)).await?;
        drop(turn);
        self.collect_later();
        Ok(restored)
    }

    /// Copies what a workspace has written beyond its layers, as it is at one moment.
    pub(crate) async fn copy_upper(
        &self,
        id: &WorkspaceId,
        to: std::path::PathBuf,
    ) -> Result<(), WorkspaceError> {
        let turn = self.0.live.turn(id).await;
        let Some(workspace) = self.0.store.workspace(Whose::Everyone, id).await? else {
            return Ok(());
        };
        let mut scratch = None;
        if let Some(running) = turn.running() {
            let owner = self.0.executor.owner_of(&workspace.tenant).await?;
            let both = ["workspace", "output"];
            match captured(&self.0.layers, owner, &workspace.upper, &running, &both).await {
                Ok(taken) => scratch = Some(taken.scratch),
                Err(CaptureError::Ask(AskError::Ended)) => turn.idle().await,
                Err(error) => return Err(error.into()),
            }
        }
        let tree = scratch.as_ref().map_or(&workspace.upper, |scratch| &scratch.id);
        let from = self.0.layers.trees().files(tree);
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
    }

    /// Puts workspaces aside that had no command for as long as they said.
    pub(crate) async fn pause_idle(&self) -> Result<u64, WorkspaceError> {
        let mut paused = 0;
        for workspace in self.0.store.idle_workspaces(Timestamp::now()).await? {
            let Some(turn) = self.0.live.turn_if_idle(&workspace.id) else { continue };
            // Nothing can begin now; what began and ended meanwhile shows.
            let still = self.0.store.idle_workspaces(Timestamp::now()).await?;
            let Some(workspace) = still.into_iter().find(|other| other.id == workspace.id) else {
                continue;
            };
            match self.pause(workspace, &turn).await {
                Ok(()) => paused += 1,
                Err(error) => tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "an idle workspace was not paused"
                ),
            }
        }
        Ok(paused)
    }

    async fn pause(&self, workspace: Workspace, turn: &Turn) -> Result<(), WorkspaceError> {
        let mut taken = self.take(&workspace, turn).await?;
        let name = format!("auto:{}", workspace.id);
        let snapshot = snapshot_of(&workspace, &taken.layer, Some(name));
        let base = taken.workspace.take().unwrap_or(workspace);
        taken.workspace = Some(Workspace {
            paused_at: Some(Timestamp::now()),
            auto_snapshot: Some(snapshot.id.clone()),
            ..base
        });
        let layer = snapshot.layer.clone();
        self.commit(taken, snapshot, Vec::new()).await?;
        self.tend_later(layer);
        Ok(())
    }

    /// Makes a layer of what a workspace is now.
    async fn take(&self, workspace: &Workspace, turn: &Turn) -> Result<Taken, WorkspaceError> {
        let chain = self.chain(workspace).await?;
        if let Some(running) = turn.running() {
            let owner = self.0.executor.owner_of(&workspace.tenant).await?;
            let both = ["workspace", "output"];
            match captured(&self.0.layers, owner, &workspace.upper, &running, &both).await {
                Ok(Captured { scratch, freeze, .. }) => {
                    let layer = scratch.id.clone();
                    return Ok(Taken {
                        new_layer: Some(new_layer(workspace, layer.clone())),
                        layer,
                        workspace: None,
                        freeze: Some(freeze),
                        scratch: Some(scratch),
                        _chain: chain,
                    });
                }
                // It ended meanwhile: then the workspace is idle.
                Err(CaptureError::Ask(AskError::Ended)) => turn.idle().await,
                Err(error) => return Err(error.into()),
            }
        }
        let (trees, upper) = (Arc::clone(self.0.layers.trees()), workspace.upper.clone());
        let unchanged = blocking(move || trees.is_empty(&upper)).await?;
        let (layer, new_layer, changed) = match &workspace.base {
            Some(base) if unchanged => (base.clone(), None, None),
            _ => {
                let owner = self.0.executor.owner_of(&workspace.tenant).await?;
                let (trees, upper) = (Arc::clone(self.0.layers.trees()), workspace.upper.clone());
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
        let workspace = changed;
        Ok(Taken { layer, new_layer, workspace, freeze: None, scratch: None, _chain: chain })
    }

    async fn commit(
        &self,
        taken: Taken,
        snapshot: Snapshot,
        forks: Vec<Workspace>,
    ) -> Result<(), WorkspaceError> {
        let Taken { new_layer, workspace, scratch, .. } = taken;
        let change = Change { layer: new_layer, workspace, snapshot: Some(snapshot), forks };
        self.0.store.change(&change).await?;
        if let Some(scratch) = scratch {
            scratch.keep();
        }
        Ok(())
    }

    /// A workspace's layers, not more than can be mounted with one above.
    async fn chain(&self, workspace: &Workspace) -> Result<Chain, WorkspaceError> {
        let chain = self.0.layers.chain(workspace.base.as_ref()).await?;
        match &workspace.base {
            Some(base) if Layers::is_too_deep(&chain) => {
                self.0.layers.squash(base).await?;
                Ok(self.0.layers.chain(Some(base)).await?)
            }
            _ => Ok(chain),
        }
    }

    async fn find_snapshot(&self, whose: Whose<'_>, id: &str) -> Result<Snapshot, WorkspaceError> {
        let missing = || WorkspaceError::NoSnapshot(shortened(id));
        let id: SnapshotId = id.parse().map_err(|_| missing())?;
        let row = self.0.store.snapshot(whose, &id).await?.ok_or_else(missing)?;
        Ok(row.snapshot)
    }

    fn settings(&self, workspace: &Workspace, new: &NewExec) -> Result<Settings, WorkspaceError> {
        let mut options = options(&workspace.config).map_err(WorkspaceError::Config)?;
        options.timeout_secs = new.timeout_secs.or(options.timeout_secs);
        options.memory_mb = new.memory_mb.or(options.memory_mb);
        options.settings(self.0.executor.config()).map_err(WorkspaceError::Options)
    }

    fn check_flavors(&self, settings: &Settings) -> Result<(), WorkspaceError> {
        match flavors::find(&self.0.flavors, settings.flavors()) {
            Ok(_) => Ok(()),
            Err(flavors::FlavorError::Unknown(name)) => Err(WorkspaceError::FlavorGone(name)),
            Err(error) => Err(ExecError::from(error).into()),
        }
    }

    async fn check_count(&self, tenant: &TenantId, more: u64) -> Result<(), WorkspaceError> {
        let Some(most) = self.0.quotas.workspaces else { return Ok(()) };
        let there = self.0.store.usage(tenant).await?.workspaces;
        if there + more > most { Err(WorkspaceError::WorkspaceQuota(most)) } else { Ok(()) }
    }

    async fn check_bytes(&self, tenant: &TenantId) -> Result<(), WorkspaceError> {
        let Some(most) = self.0.quotas.bytes else { return Ok(()) };
        let kept = self.0.store.usage(tenant).await?.layer_bytes;
        if kept >= most { Err(WorkspaceError::ByteQuota { most, kept }) } else { Ok(()) }
    }

    async fn tend(&self, layer: &TreeId) -> Result<(), WorkspaceError> {
        self.0.layers.index(layer).await?;
        self.tend_later(layer.clone());
        Ok(())
    }

    fn tend_later(&self, layer: TreeId) {
        let layers = self.0.layers.clone();
        self.0.executor.tasks().spawn(async move {
            if let Err(error) = layers.tend(&layer).await {
                tracing::error!(
                    %layer,
                    error = &error as &dyn std::error::Error,
                    "a layer's manifest was not written; the next use will"
                );
            }
        });
    }

    pub(crate) fn collect_later(&self) {
        let layers = self.0.layers.clone();
        self.0.executor.tasks().spawn(async move {
            if let Err(error) = layers.collect().await {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "garbage was not collected; the next time will"
                );
            }
        });
    }
}

fn missing(id: &str) -> WorkspaceError {
    WorkspaceError::Missing(shortened(id))
}

/// An id as sent, short enough to be said back.
fn shortened(id: &str) -> String {
    id.chars().take(64).collect()
}

fn new_layer(workspace: &Workspace, id: TreeId) -> NewLayer {
    NewLayer {
        id,
        tenant: workspace.tenant.clone(),
        parent: workspace.base.clone(),
        sealed_at: store::now(),
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
