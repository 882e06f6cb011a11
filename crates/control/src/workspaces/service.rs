//! The rules of workspaces.

use std::sync::Arc;

use ids::{TenantId, TreeId, WorkspaceId};
use jail::Access;
use jiff::Timestamp;
use store::{Domain, JailKind, Store, Whose, Workspace};
use tokio_util::task::TaskTracker;

use super::config::{config, options};
use super::error::{LONGEST_IDLE_SECS, WorkspaceError, missing};
use super::labels;
use super::live::{Live, Turn};
use crate::config::Quotas;
use crate::exec::{
    Asker, ExecError, ExecOptions, Executor, Ground, Guest, Held, Input, Job, NetworkSpec, Program,
    SessionAccess, Settings, flavors, images,
};
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

/// A program that lives in a workspace: it stays until it is ended, and lets commands in beside it.
#[derive(Debug)]
pub(crate) struct NewResident {
    pub(crate) program: String,
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) session: Option<SessionAccess>,
    /// What the workspace says in other cases.
    pub(crate) options: ExecOptions,
    /// Flavors beside the workspace's own.
    pub(crate) flavors: Vec<String>,
    /// Read-only, as flavors are put in.
    pub(crate) directories: Vec<(String, std::path::PathBuf)>,
}

/// How a command comes to run.
#[derive(Debug)]
pub(crate) enum Errand {
    /// In a jail of its own.
    Alone(Box<Job>),
    /// In the jail that is there, beside who lives in it.
    Beside(Box<Guest>),
}

/// How long a resident may stay: until it is ended.
const FOR_GOOD: std::time::Duration = std::time::Duration::from_secs(10 * 365 * 24 * 3600);

/// Who takes hold of a workspace.
#[derive(Debug)]
struct Occupation {
    kind: JailKind,
    settings: Settings,
    program: String,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    session: Option<SessionAccess>,
    stdin: Option<Input>,
    directories: Vec<(String, std::path::PathBuf)>,
    /// Whether the home directory is the workspace's, and stays.
    home: bool,
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

    /// From a command to what runs it: a job that holds the workspace meanwhile, or a guest of who lives there.
    pub(crate) async fn errand(
        &self,
        workspace: &Workspace,
        new: NewExec,
        kind: JailKind,
    ) -> Result<Errand, WorkspaceError> {
        let turn = self.0.live.turn(&workspace.id).await;
        // As it is now: while we waited it may have been paused, restored or deleted.
        let workspace = self.get(Whose::Everyone, workspace.id.as_str()).await?;
        if turn.running().is_some() {
            return self
                .guest(&turn, &workspace, new)
                .await
                .map(|guest| Errand::Beside(guest.into()));
        }
        let settings = self.settings(&workspace, &new)?;
        let occupation = Occupation {
            kind,
            settings,
            program: new.program,
            arguments: new.arguments,
            environment: new.environment,
            session: new.session,
            stdin: new.stdin,
            directories: Vec::new(),
            home: false,
        };
        Ok(Errand::Alone(self.occupy(&turn, workspace, occupation).await?.into()))
    }

    /// A job that lives in the workspace, with a home that stays.
    pub(crate) async fn resident(
        &self,
        workspace: &Workspace,
        new: NewResident,
    ) -> Result<Job, WorkspaceError> {
        let turn = self.0.live.turn(&workspace.id).await;
        if turn.running().is_some() {
            return Err(WorkspaceError::Busy);
        }
        let workspace = self.get(Whose::Everyone, workspace.id.as_str()).await?;
        let kept = options(&workspace.config).map_err(WorkspaceError::Config)?;
        let mut flavors = new.flavors;
        flavors.extend(kept.flavors.unwrap_or_default());
        // It is asked over the loopback interface, which a closed network lacks; nothing is outside of either.
        let network = match new.options.network.or(kept.network) {
            None | Some(NetworkSpec::None) => NetworkSpec::Loopback,
            Some(network) => network,
        };
        let options = ExecOptions {
            network: Some(network),
            seccomp: kept.seccomp,
            image: kept.image,
            flavors: Some(flavors),
            ..new.options
        };
        let mut settings =
            options.settings(self.0.executor.config()).map_err(WorkspaceError::Options)?;
        settings.limits.timeout = FOR_GOOD;
        let occupation = Occupation {
            kind: JailKind::Workspace,
            settings,
            program: new.program,
            arguments: new.arguments,
            environment: new.environment,
            session: new.session,
            stdin: None,
            directories: new.directories,
            home: true,
        };
        self.occupy(&turn, workspace, occupation).await
    }

    /// A command beside who lives in the jail that is there.
    async fn guest(
        &self,
        turn: &Turn,
        workspace: &Workspace,
        new: NewExec,
    ) -> Result<Guest, WorkspaceError> {
        let (resident, asker, visit) = turn.visit().ok_or(WorkspaceError::Busy)?;
        if new.memory_mb.is_some() {
            return Err(WorkspaceError::GuestLimit);
        }
        let session = new.session.as_ref().map(|session| session.id.clone());
        if session.is_some() && session != resident.session {
            return Err(WorkspaceError::GuestSession);
        }
        let settings = self.settings(workspace, &new)?;
        let label = label(workspace, &new.program);
        let mut held = Held::default();
        held.keep(visit);
        let place = self.0.executor.reserve(&workspace.tenant, 1)?;
        held.keep(place);
        self.0.store.touch_workspace(&workspace.id, Timestamp::now()).await?;
        let given = new.session.into_iter().flat_map(|session| session.environment);
        Ok(Guest {
            tenant: workspace.tenant.clone(),
            label,
            resident,
            asker,
            program: new.program,
            arguments: new.arguments,
            environment: given.chain(new.environment).collect(),
            session,
            stdin: new.stdin,
            timeout: settings.limits.timeout,
            held,
        })
    }

    /// Takes hold of a workspace in which nothing runs.
    async fn occupy(
        &self,
        turn: &Turn,
        workspace: Workspace,
        new: Occupation,
    ) -> Result<Job, WorkspaceError> {
        let settings = new.settings;
        self.check_trees(&settings)?;
        self.check_bytes(&workspace.tenant).await?;
        let (chain, mut held) = (self.chain(&workspace).await?, Held::default());
        held.keep(self.0.layers.trees().pin(&workspace.upper));
        let owner = self.0.executor.owner_of(&workspace.tenant).await?;
        let (trees, upper, alone) =
            (Arc::clone(self.0.layers.trees()), workspace.upper.clone(), workspace.base.is_none());
        blocking(move || trees.make(&upper, owner, alone)).await?;
        let layers =
            jail::Layers { home: new.home, ..self.0.layers.overlay(&chain, &workspace.upper) };
        held.keep(chain);
        let place = if new.home {
            Some(self.0.executor.reserve_home(&workspace.tenant)?)
        } else {
            self.0.executor.reserve(&workspace.tenant, 1)?.pop()
        };
        let (asker, asked) = Asker::new();
        let (busy, ended) = turn.begin(asker);
        held.keep(busy);
        self.0.store.touch_workspace(&workspace.id, Timestamp::now()).await?;
        self.note_end(workspace.id.clone(), ended);
        let label = label(&workspace, if new.home { "agent" } else { &new.program });
        let program = Program::Command { program: new.program, arguments: new.arguments };
        Ok(Job {
            session: new.session,
            environment: new.environment,
            git: workspace.git_repo.map(|repo| (repo, workspace.git_ref)),
            stdin: new.stdin,
            ground: Ground::Layered { layers, workspace: Access::ReadWrite },
            held,
            place,
            asked: Some(asked),
            directories: new.directories,
            ..Job::new(workspace.tenant, new.kind, label, program, settings)
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

    fn settings(&self, workspace: &Workspace, new: &NewExec) -> Result<Settings, WorkspaceError> {
        let mut options = options(&workspace.config).map_err(WorkspaceError::Config)?;
        options.timeout_secs = new.timeout_secs.or(options.timeout_secs);
        options.memory_mb = new.memory_mb.or(options.memory_mb);
        options.settings(self.0.executor.config()).map_err(WorkspaceError::Options)
    }

    fn check_trees(&self, settings: &Settings) -> Result<(), WorkspaceError> {
        match flavors::find(&self.0.flavors, settings.flavors()) {
            Ok(_) => {}
            Err(flavors::FlavorError::Unknown(name)) => {
                return Err(WorkspaceError::FlavorGone(name));
            }
            Err(error) => return Err(ExecError::from(error).into()),
        }
        let image = settings.image.as_deref().map(|name| images::find(&self.0.images, name));
        match image.transpose() {
            Ok(_) => Ok(()),
            Err(images::ImageError::Unknown(name)) => Err(WorkspaceError::ImageGone(name)),
            Err(error) => Err(ExecError::from(error).into()),
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

/// As the ledger calls a command in a workspace.
fn label(workspace: &Workspace, program: &str) -> String {
    let command: String = program.chars().take(256).collect();
    format!("workspace:{}/{command}", workspace.id)
}
