//! Who runs in a workspace: a command in a jail of its own, a resident that stays, or a command beside it.

use std::sync::Arc;

use ids::WorkspaceId;
use jail::Access;
use jiff::Timestamp;
use store::{JailKind, Whose, Workspace};

use super::config::options;
use super::error::WorkspaceError;
use super::live::Turn;
use super::service::Workspaces;
use crate::exec::{
    Asker, ExecError, ExecOptions, Ground, Guest, Held, Input, Job, NetworkSpec, Program,
    SessionAccess, Settings, flavors, images,
};
use crate::layers::blocking;

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

impl Workspaces {
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

    fn settings(&self, workspace: &Workspace, new: &NewExec) -> Result<Settings, WorkspaceError> {
        let mut options = options(&workspace.config).map_err(WorkspaceError::Config)?;
        options.timeout_secs = new.timeout_secs.or(options.timeout_secs);
        options.memory_mb = new.memory_mb.or(options.memory_mb);
        options.settings(self.0.executor.config()).map_err(WorkspaceError::Options)
    }

    pub(super) fn check_trees(&self, settings: &Settings) -> Result<(), WorkspaceError> {
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
}

/// As the ledger calls a command in a workspace.
fn label(workspace: &Workspace, program: &str) -> String {
    let command: String = program.chars().take(256).collect();
    format!("workspace:{}/{command}", workspace.id)
}
