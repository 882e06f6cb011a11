//! The rules of workspaces.

use std::sync::Arc;

use ids::{TenantId, TreeId, WorkspaceId};
use jiff::Timestamp;
use store::{Domain, Store, Whose, Workspace};
use tokio_util::task::TaskTracker;

use super::config::config;
use super::error::{LONGEST_IDLE_SECS, WorkspaceError, missing};
use super::labels;
use super::live::Live;
use crate::config::Quotas;
use crate::exec::{ExecError, Executor, Settings, flavors, images};
use crate::git::{Cloner, Destination, Repository};
use crate::layers::{Chain, LayerError, Layers, blocking};

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

/// Workspaces of all tenants. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Workspaces(pub(super) Arc<WorkspacesParts>);

#[derive(Debug)]
pub(crate) struct WorkspacesParts {
    pub(crate) store: Store,
    pub(crate) layers: Layers,
    pub(crate) executor: Executor,
    pub(crate) cloner: Cloner,
    pub(crate) live: Live,
    pub(crate) flavors: std::path::PathBuf,
    pub(crate) images: std::path::PathBuf,
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

    pub(super) fn store(&self) -> &Store {
        &self.0.store
    }

    pub(super) fn live(&self) -> &Live {
        &self.0.live
    }

    pub(super) fn tasks(&self) -> &TaskTracker {
        self.0.executor.tasks()
    }

    /// Until what is given is dropped, nobody else makes workspaces.
    pub(super) async fn admission(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.0.admission.lock().await
    }

    /// Does something to its end, also if nobody waits for it any more.
    pub(super) async fn whole<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, WorkspaceError>> + Send + 'static,
    ) -> Result<T, WorkspaceError> {
        self.tasks().spawn(work).await.map_err(LayerError::Broken)?
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
        if let Some(name) = &new.settings.image {
            images::find(&self.0.images, name).map_err(ExecError::from)?;
        }
        self.check_bytes(&new.tenant).await?;
        self.check_count(&new.tenant, 1).await?;
        let owner = self.0.executor.owner_of(&new.tenant).await?;
        let scratch = Arc::new(self.0.layers.scratch(owner, true).await?);
        if !new.repositories.is_empty() {
            let layers = self.0.layers.overlay(&Chain::default(), &scratch.id);
            let to = Destination {
                tenant: new.tenant.clone(),
                layers,
                tree: Arc::clone(&scratch),
                place: None,
            };
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
        // The row and its tree, or neither, whoever hangs up.
        let this = self.clone();
        self.whole(async move {
            let _admission = this.admission().await;
            this.check_count(&workspace.tenant, 1).await?;
            let bytes = this.check_more(&workspace.tenant, &scratch.id).await?;
            let inserted = this.0.store.insert_workspace(&workspace).await?;
            inserted.map_err(WorkspaceError::DomainTaken)?;
            scratch.keep();
            if let Some(bytes) = bytes {
                this.0.store.note_written(&workspace.upper, bytes).await?;
            }
            Ok(workspace)
        })
        .await
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
    pub(super) async fn find(
        &self,
        whose: Whose<'_>,
        id: &str,
    ) -> Result<Option<Workspace>, WorkspaceError> {
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
        let this = self.clone();
        self.whole(async move { this.delete_now(&workspace.id).await }).await
    }

    async fn delete_now(&self, id: &WorkspaceId) -> Result<(), WorkspaceError> {
        let turn = self.0.live.turn(id).await;
        if let Some(running) = turn.running() {
            running.kill();
            turn.idle().await;
        }
        let workspace = self.get(Whose::Everyone, id.as_str()).await?;
        if !self.0.store.delete_workspace(id, Timestamp::now()).await? {
            return Err(missing(id.as_str()));
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

    /// A workspace's layers, not more than can be mounted with one above.
    pub(super) async fn chain(&self, workspace: &Workspace) -> Result<Chain, WorkspaceError> {
        let chain = self.0.layers.chain(workspace.base.as_ref()).await?;
        match &workspace.base {
            Some(base) if Layers::is_too_deep(&chain) => {
                self.0.layers.squash(base).await?;
                Ok(self.0.layers.chain(Some(base)).await?)
            }
            _ => Ok(chain),
        }
    }

    pub(super) async fn check_count(
        &self,
        tenant: &TenantId,
        more: u64,
    ) -> Result<(), WorkspaceError> {
        let Some(most) = self.0.quotas.workspaces else { return Ok(()) };
        let there = self.0.store.usage(tenant).await?.workspaces;
        if there + more > most { Err(WorkspaceError::WorkspaceQuota(most)) } else { Ok(()) }
    }

    pub(super) async fn check_bytes(&self, tenant: &TenantId) -> Result<(), WorkspaceError> {
        let Some(most) = self.0.quotas.bytes else { return Ok(()) };
        let kept = self.0.store.usage(tenant).await?.bytes;
        if kept >= most { Err(WorkspaceError::ByteQuota { most, kept }) } else { Ok(()) }
    }

    /// Measures a tree that is to be kept, if there is a quota; an error if it does not fit in.
    pub(super) async fn check_more(
        &self,
        tenant: &TenantId,
        tree: &TreeId,
    ) -> Result<Option<u64>, WorkspaceError> {
        let Some(most) = self.0.quotas.bytes else { return Ok(None) };
        let files = self.0.layers.trees().files(tree);
        let more = blocking(move || snapshot::measure(&files)).await?.bytes;
        let kept = self.0.store.usage(tenant).await?.bytes + more;
        if kept > most { Err(WorkspaceError::ByteQuota { most, kept }) } else { Ok(Some(more)) }
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
