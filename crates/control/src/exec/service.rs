//! Admission, planning, and the birth of a job.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ids::{SessionId, TenantId};
use jail::{
    Access, Command, Enforcement, Engine, Layers, SpawnError, Start, Stdin, Tree, WORKSPACE,
};
use jiff::Timestamp;
use serde_json::json;
use store::{JailEnd, JailKind, NewJail, Store, StoreError};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::ask::{Ask, AskError, Asker};
use super::capture::Tail;
use super::flavors::{self, FlavorError};
use super::held::Held;
use super::host_ids::HostIds;
use super::meter::Meter;
use super::options::{Settings, TREE_BYTES};
use super::owner::{self, Cut, Event, Input, Owned, Sink};
use super::places::{Place, Places};
use super::result::{ExecResult, ResourceStats};
use crate::config::{BaseUrl, ExecConfig};
use crate::metrics::Metrics;
use crate::network::{self, PhantomAccess, Plan, PlanError};

/// Events that may wait for a slow client. When they do, the jail's own output waits in its pipe.
const EVENT_QUEUE: usize = 16;

/// What to run, and for whom.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) tenant: TenantId,
    pub(crate) kind: JailKind,
    pub(crate) label: String,
    pub(crate) program: Program,
    pub(crate) session: Option<SessionAccess>,
    pub(crate) settings: Settings,
    /// More variables; the last word on a name counts.
    pub(crate) environment: Vec<(String, String)>,
    /// What the command reads; nothing if there is none.
    pub(crate) stdin: Option<Input>,
    pub(crate) ground: Ground,
    /// The repository it is over, and its ref, for the ledger.
    pub(crate) git: Option<(String, Option<String>)>,
    /// More directories of the host, as flavors are put in.
    pub(crate) directories: Vec<(String, PathBuf)>,
    /// The row of the jail that this one was forked from.
    pub(crate) parent: Option<i64>,
    /// Whether it has a row in the ledger. What is done for a job, not asked for by a caller, has none.
    pub(crate) listed: bool,
    /// Let go of when nothing of the jail is left.
    pub(crate) held: Held,
    /// Taken before, for several jobs at once.
    pub(crate) place: Option<Place>,
    /// Through which others ask the owner; made before, so that they can from the first moment.
    pub(crate) asks: Option<mpsc::Receiver<Ask>>,
}

impl Job {
    /// A job in a fresh jail, with nothing more than it must have.
    pub(crate) fn new(
        tenant: TenantId,
        kind: JailKind,
        label: impl Into<String>,
        program: Program,
        settings: Settings,
    ) -> Self {
        Self {
            tenant,
            kind,
            label: label.into(),
            program,
            session: None,
            settings,
            environment: Vec::new(),
            stdin: None,
            ground: Ground::default(),
            git: None,
            directories: Vec::new(),
            parent: None,
            listed: true,
            held: Held::default(),
            place: None,
            asks: None,
        }
    }
}

/// What stands at `/workspace` and `/output`.
#[derive(Debug, Clone, Default)]
pub(crate) enum Ground {
    /// Both fresh, the workspace closed to writing.
    #[default]
    Fresh,
    /// Both parts of an overlay; `/output` is writable.
    Layered { layers: Layers, workspace: Access },
    /// The workspace fresh and closed, `/output` a part of an overlay.
    LayeredOutput { layers: Layers },
}

/// A session as its jails get it.
#[derive(Debug, Clone)]
pub(crate) struct SessionAccess {
    pub(crate) id: SessionId,
    pub(crate) environment: Vec<(String, String)>,
}

#[derive(Debug)]
pub(crate) enum Program {
    Command { program: String, arguments: Vec<String> },
    Code(Code),
}

/// A file and the runtime that runs it.
#[derive(Debug, Clone)]
pub(crate) struct Code {
    pub(crate) runtime: &'static str,
    pub(crate) file: &'static str,
    /// `None` if it is in the workspace already.
    pub(crate) text: Option<String>,
}

/// Why a job did not begin.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExecError {
    #[error("jail {0} has ended")]
    Ended(i64),
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error("too many concurrent executions")]
    TooMany,
    #[error("quota of concurrent jails: the tenant may have {0} at once")]
    Quota(u64),
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Flavor(#[from] FlavorError),
    #[error("the trees of a run could not be made")]
    Layers(#[source] Box<crate::layers::LayerError>),
    #[error("there is no `{0}` on the jail's PATH ({1}): choose a flavor that has it")]
    NoRuntime(&'static str, String),
    #[error("more tenants than host users to tell them apart: restart the server")]
    NoHostId,
    #[error("memory_mb: too little for a jail to start in")]
    TooLittleMemory,
    #[error("could not start the jail")]
    Spawn(#[source] SpawnError),
    #[error("could not serve the jail's network")]
    Network(#[source] std::io::Error),
    #[error("could not write to the ledger")]
    Ledger(#[from] StoreError),
    /// The owner ended without a result: the server is stopping.
    #[error("the run was ended with the server")]
    Stopped,
}

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

    fn insert(&self, id: i64, asker: Option<Asker>) {
        self.lock().insert(id, (Live::default(), asker));
    }

    fn asker(&self, id: i64) -> Option<Asker> {
        self.lock().get(&id).and_then(|(_, asker)| asker.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Rows> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs jobs. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Executor(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    parts: ExecutorParts,
    places: Places,
    host_ids: HostIds,
    /// Numbers, below zero, of jobs without a row.
    unlisted: AtomicI64,
    live: LiveRows,
    total: AtomicU64,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// What an executor is made of.
#[derive(Debug)]
pub(crate) struct ExecutorParts {
    pub(crate) engine: Engine,
    pub(crate) store: Store,
    pub(crate) proxy: phantom::Proxy,
    pub(crate) proxy_url: BaseUrl,
    pub(crate) dialler: egress::Dialler,
    pub(crate) flavors: PathBuf,
    pub(crate) config: ExecConfig,
    pub(crate) metrics: Metrics,
}

impl Executor {
    pub(crate) fn new(parts: ExecutorParts) -> Self {
        let places = Places::new(parts.config.max_concurrent, parts.config.quotas.jails);
        Self(Arc::new(Inner {
            host_ids: HostIds::new(parts.store.clone(), parts.config.first_host_id),
            parts,
            places,
            unlisted: AtomicI64::new(0),
            live: LiveRows::default(),
            total: AtomicU64::new(0),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        }))
    }

    pub(crate) fn config(&self) -> &ExecConfig {
        &self.0.parts.config
    }

    pub(crate) fn live(&self) -> &LiveRows {
        &self.0.live
    }

    /// Commands started since the server did.
    pub(crate) fn total(&self) -> u64 {
        self.0.total.load(Ordering::Relaxed)
    }

    /// Runs a job to its end.
    ///
    /// # Cancel safety
    ///
    /// When the caller goes away the jail is killed and its row closed.
    pub(crate) async fn run(&self, job: Job) -> Result<ExecResult, ExecError> {
        self.begin_run(job).await?.wait().await
    }

    /// Starts a job; what it gives can be waited for. Dropping it ends the job.
    pub(crate) async fn begin_run(&self, job: Job) -> Result<Begun, ExecError> {
        let (result, wait) = oneshot::channel();
        let id = self.begin(job, Sink::Result(result)).await?;
        Ok(Begun { id, wait })
    }

    /// Takes places for several jobs at once, or none.
    pub(crate) fn reserve(&self, tenant: &TenantId, number: u32) -> Result<Vec<Place>, ExecError> {
        self.0.places.take(tenant, number)
    }

    /// The host user of a tenant's files; `None` if they are the server's own, which is not root.
    pub(crate) async fn owner_of(&self, tenant: &TenantId) -> Result<snapshot::Owner, ExecError> {
        if !self.0.parts.engine.offers().root {
            return Ok(None);
        }
        self.0.host_ids.of(tenant).await.map(Some)
    }

    /// Starts something that ends by itself soon, and is waited for when the server stops.
    pub(crate) fn tasks(&self) -> &TaskTracker {
        &self.0.tasks
    }

    /// Runs a job and gives what happens as it happens. Dropping the receiver ends the job.
    pub(crate) async fn stream(
        &self,
        job: Job,
        cut: Cut,
    ) -> Result<mpsc::Receiver<Event>, ExecError> {
        let (events, receiver) = mpsc::channel(EVENT_QUEUE);
        self.begin(job, Sink::Events(events, cut)).await?;
        Ok(receiver)
    }

    /// Puts another policy in force in a jail that runs; gives how many connections it cut.
    pub(crate) async fn steer(&self, id: i64, policy: egress::Policy) -> Result<usize, ExecError> {
        let asker = self.0.live.asker(id).ok_or(ExecError::Ended(id))?;
        Ok(asker.steer(policy).await?)
    }

    /// Keeps jails ready for plain runs of a tenant, so that its first is as quick as the next.
    pub(crate) async fn warm(&self, tenant: &TenantId) -> Result<(), ExecError> {
        let parts = &self.0.parts;
        let plan = Plan::new(crate::network::Mode::None, None)?;
        let host_id = self.0.host_ids.of(tenant).await?;
        let settings = Settings::plain(&parts.config);
        let program = Program::Command { program: String::new(), arguments: Vec::new() };
        let job = Job::new(tenant.clone(), JailKind::Run, "", program, settings);
        let path = flavors::search_path(&[]);
        let start = start_of(&job, &path, Vec::new(), &plan, host_id, parts.config.enforcement);
        parts.engine.warm(&start).await.map_err(ExecError::Spawn)
    }

    /// Kills what runs and waits until every row is closed.
    pub(crate) async fn close(&self) {
        self.0.stop.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    async fn begin(&self, mut job: Job, sink: Sink) -> Result<i64, ExecError> {
        let place = match job.place.take() {
            Some(place) => place,
            None => self.0.places.take_one(&job.tenant)?,
        };
        // From here on it happens whether or not the caller stays: a jail without a closed row, or a
        // row without a jail, must not be left by a client that hangs up in between.
        let this = self.clone();
        let (begun, wait) = oneshot::channel();
        self.0.tasks.spawn(async move {
            match this.start(job, place).await {
                Ok(owned) => {
                    // The caller may be gone already; the owner will notice by its sink.
                    drop(begun.send(Ok(owned.id)));
                    owner::own(owned, sink, &this.0.stop).await;
                }
                Err(error) => drop(begun.send(Err(error))),
            }
        });
        wait.await.map_err(|_| ExecError::Stopped)?
    }

    async fn start(&self, mut job: Job, place: Place) -> Result<Owned, ExecError> {
        let parts = &self.0.parts;
        let flavors = flavors::find(&parts.flavors, &job.settings.flavors)?;
        let phantom = job.session.as_ref().map(|session| PhantomAccess {
            proxy: parts.proxy.clone(),
            url: parts.proxy_url.clone(),
            session: session.id.clone(),
        });
        let plan = Plan::new(job.settings.mode.clone(), phantom.as_ref().map(|p| &p.url))?;
        let path = flavors::search_path(&flavors);
        let runtime = job.program.runtime();
        let timeout = job.settings.limits.timeout;
        let host_id = self.0.host_ids.of(&job.tenant).await?;
        let meter = Meter::of(&job, parts.config.quotas.bytes, &parts.store);
        let enforcement = parts.config.enforcement;
        let start = start_of(&job, &path, flavors, &plan, host_id, enforcement);
        let (spawned, id) = tokio::join!(parts.engine.spawn(start), self.row(&job));
        let id = id?;
        let spawned = spawned.map_err(|error| match error {
            SpawnError::Died { oom: true } => ExecError::TooLittleMemory,
            error => ExecError::Spawn(error),
        });
        let running = match spawned {
            Ok(running) => match (running.jail.not_executed(), runtime) {
                (Some(_), Some(runtime)) => Err(ExecError::NoRuntime(runtime, path)),
                _ => Ok(running),
            },
            Err(error) => Err(error),
        };
        let served = running.and_then(|mut running| {
            let listeners = std::mem::take(&mut running.listeners);
            network::serve(plan, listeners, &parts.dialler, phantom, &self.0.tasks)
                .map(|served| (running, served))
                .map_err(ExecError::Network)
        });
        match served {
            Ok((running, served)) => {
                let (asker, asks) = if let Some(asks) = job.asks.take() {
                    (None, asks)
                } else {
                    let (asker, asks) = Asker::new();
                    (Some(asker), asks)
                };
                self.0.live.insert(id, asker);
                self.0.total.fetch_add(1, Ordering::Relaxed);
                parts.metrics.jail_started();
                Ok(Owned {
                    running,
                    served,
                    asks,
                    id,
                    listed: job.listed,
                    stdin: job.stdin,
                    held: job.held,
                    timeout,
                    output_limit: parts.config.output_limit_bytes,
                    store: parts.store.clone(),
                    live: self.0.live.clone(),
                    metrics: parts.metrics.clone(),
                    place,
                    meter,
                })
            }
            Err(error) => {
                if job.listed {
                    self.close_unstarted(id, &error).await;
                }
                Err(error)
            }
        }
    }

    /// The number of a job: its row's, if it has one.
    async fn row(&self, job: &Job) -> Result<i64, StoreError> {
        if job.listed {
            self.0.parts.store.insert_jail(&new_row(job)).await
        } else {
            Ok(self.0.unlisted.fetch_sub(1, Ordering::Relaxed) - 1)
        }
    }

    async fn close_unstarted(&self, id: i64, error: &ExecError) {
        let told = match error {
            // What failed on the host is the operator's to read, in the log.
            ExecError::Spawn(_) | ExecError::Network(_) => {
                "the jail could not be started".to_owned()
            }
            other => other.to_string(),
        };
        let end = JailEnd { error: Some(told), ..JailEnd::default() };
        if let Err(error) = self.0.parts.store.end_jail(id, Timestamp::now(), &end).await {
            tracing::error!(
                jail.id = id,
                error = &error as &dyn std::error::Error,
                "row not closed"
            );
        }
    }
}

/// A job that runs.
#[derive(Debug)]
pub(crate) struct Begun {
    /// Of its row.
    pub(crate) id: i64,
    wait: oneshot::Receiver<ExecResult>,
}

impl Begun {
    pub(crate) async fn wait(self) -> Result<ExecResult, ExecError> {
        self.wait.await.map_err(|_| ExecError::Stopped)
    }
}

impl Program {
    fn runtime(&self) -> Option<&'static str> {
        match self {
            Self::Command { .. } => None,
            Self::Code(code) => Some(code.runtime),
        }
    }
}

fn new_row(job: &Job) -> NewJail {
    let mut config = job.settings.shown();
    if let Some((repo, reference)) = &job.git {
        config["git_repo"] = json!(repo);
        if let Some(reference) = reference {
            config["git_ref"] = json!(reference);
        }
    }
    NewJail {
        tenant: job.tenant.clone(),
        kind: job.kind,
        started_at: Timestamp::now(),
        session: job.session.as_ref().map(|session| session.id.clone()),
        label: job.label.clone(),
        parent: job.parent,
        config,
    }
}

fn start_of(
    job: &Job,
    path: &str,
    mut flavors: Vec<(String, PathBuf)>,
    plan: &Plan,
    host_id: u32,
    enforcement: Enforcement,
) -> Start {
    let mut environment = vec![
        ("PATH".to_owned(), path.to_owned()),
        ("HOME".to_owned(), "/home/agent".to_owned()),
        ("LANG".to_owned(), "C.UTF-8".to_owned()),
    ];
    let session = job.session.iter().flat_map(|session| &session.environment);
    for (name, value) in session.chain(&job.environment) {
        environment.retain(|(known, _)| known != name);
        environment.push((name.clone(), value.clone()));
    }
    let limits = job.settings.limits.of_jail();
    let profile = job.settings.profile();
    let (program, arguments, code) = match &job.program {
        Program::Command { program, arguments } => (program.clone(), arguments.clone(), None),
        Program::Code(code) => {
            let file = format!("/workspace/{}", code.file);
            let text = code.text.clone().map(|text| (code.file.to_owned(), text));
            (code.runtime.to_owned(), vec![file], text)
        }
    };
    flavors.extend(job.directories.iter().cloned());
    let fresh = |access| Tree::Fresh { bytes: TREE_BYTES, access };
    let written = Tree::Layered { access: Access::ReadWrite };
    let (workspace, output, layers) = match &job.ground {
        Ground::Fresh => (fresh(Access::ReadOnly), fresh(Access::ReadWrite), None),
        Ground::LayeredOutput { layers } => {
            (fresh(Access::ReadOnly), written, Some(layers.clone()))
        }
        Ground::Layered { layers, workspace } => {
            (Tree::Layered { access: *workspace }, written, Some(layers.clone()))
        }
    };
    Start {
        command: Some(Command { program, arguments, environment, directory: WORKSPACE.to_owned() }),
        host_id,
        stdin: if job.stdin.is_some() { Stdin::Piped } else { Stdin::Empty },
        workspace,
        output,
        layers,
        code,
        flavors,
        network: plan.network().clone(),
        profile,
        limits,
        cpu_time: None,
        enforcement,
    }
}
