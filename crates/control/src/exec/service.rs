//! Admission, planning, and the birth of a job.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ids::{SessionId, TenantId};
use jail::{Access, Command, Enforcement, Engine, SpawnError, Start, Stdin, Tree, WORKSPACE};
use jiff::Timestamp;
use store::{JailEnd, JailKind, NewJail, Store, StoreError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::capture::Tail;
use super::flavors::{self, FlavorError};
use super::host_ids::HostIds;
use super::options::{Settings, TREE_BYTES};
use super::owner::{self, Event, Owned, Sink};
use super::result::{ExecResult, ResourceStats};
use crate::config::{BaseUrl, ExecConfig};
use crate::metrics::Metrics;
use crate::network::{self, PhantomAccess, Plan, PlanError, SteerError};

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
#[derive(Debug)]
pub(crate) struct Code {
    pub(crate) runtime: &'static str,
    pub(crate) file: &'static str,
    pub(crate) text: String,
}

/// Why a job did not begin.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExecError {
    #[error("jail {0} has ended")]
    Ended(i64),
    #[error(transparent)]
    Steer(#[from] SteerError),
    #[error("too many concurrent executions")]
    TooMany,
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Flavor(#[from] FlavorError),
    #[error("there is no `{0}` on the jail's PATH ({1}): choose a flavor that has it")]
    NoRuntime(&'static str, String),
    #[error("more tenants than host users to tell them apart: restart the server")]
    NoHostId,
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

/// A policy for a jail that runs, and who waits to hear how many connections it cut.
pub(super) type Steer = (egress::Policy, oneshot::Sender<Result<usize, SteerError>>);

/// Live rows of the ledger, by id.
#[derive(Debug, Clone, Default)]
pub(crate) struct LiveRows(Arc<Mutex<Rows>>);

type Rows = HashMap<i64, (Live, mpsc::Sender<Steer>)>;

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

    fn insert(&self, id: i64, steer: mpsc::Sender<Steer>) {
        self.lock().insert(id, (Live::default(), steer));
    }

    fn steer(&self, id: i64) -> Option<mpsc::Sender<Steer>> {
        self.lock().get(&id).map(|(_, steer)| steer.clone())
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
    places: Arc<Semaphore>,
    host_ids: HostIds,
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
        let places = Arc::new(Semaphore::new(parts.config.max_concurrent));
        Self(Arc::new(Inner {
            host_ids: HostIds::from(parts.config.first_host_id),
            parts,
            places,
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
        let (result, wait) = oneshot::channel();
        self.begin(job, Sink::Result(result)).await?;
        wait.await.map_err(|_| ExecError::Stopped)
    }

    /// Runs a job and gives what happens as it happens. Dropping the receiver ends the job.
    pub(crate) async fn stream(&self, job: Job) -> Result<mpsc::Receiver<Event>, ExecError> {
        let (events, receiver) = mpsc::channel(EVENT_QUEUE);
        self.begin(job, Sink::Events(events)).await?;
        Ok(receiver)
    }

    /// Puts another policy in force in a jail that runs; gives how many connections it cut.
    pub(crate) async fn steer(&self, id: i64, policy: egress::Policy) -> Result<usize, ExecError> {
        let steer = self.0.live.steer(id).ok_or(ExecError::Ended(id))?;
        let (told, hear) = oneshot::channel();
        steer.send((policy, told)).await.map_err(|_| ExecError::Ended(id))?;
        Ok(hear.await.map_err(|_| ExecError::Ended(id))??)
    }

    /// Keeps jails ready for plain runs of a tenant, so that its first is as quick as the next.
    pub(crate) async fn warm(&self, tenant: &TenantId) -> Result<(), ExecError> {
        let parts = &self.0.parts;
        let plan = Plan::new(crate::network::Mode::None, None)?;
        let host_id = self.0.host_ids.of(tenant).ok_or(ExecError::NoHostId)?;
        let settings = Settings::plain(&parts.config);
        let job = Job {
            tenant: tenant.clone(),
            kind: JailKind::Run,
            label: String::new(),
            program: Program::Command { program: String::new(), arguments: Vec::new() },
            session: None,
            settings,
        };
        let path = flavors::search_path(&[]);
        let start = start_of(job, &path, Vec::new(), &plan, host_id, parts.config.enforcement);
        parts.engine.warm(&start).await.map_err(ExecError::Spawn)
    }

    /// Kills what runs and waits until every row is closed.
    pub(crate) async fn close(&self) {
        self.0.stop.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    async fn begin(&self, job: Job, sink: Sink) -> Result<(), ExecError> {
        let place = Arc::clone(&self.0.places).try_acquire_owned();
        let place = place.map_err(|_| ExecError::TooMany)?;
        // From here on it happens whether or not the caller stays: a jail without a closed row, or a
        // row without a jail, must not be left by a client that hangs up in between.
        let this = self.clone();
        let (begun, wait) = oneshot::channel();
        self.0.tasks.spawn(async move {
            match this.start(job, place).await {
                Ok(owned) => {
                    // The caller may be gone already; the owner will notice by its sink.
                    drop(begun.send(Ok(())));
                    owner::own(owned, sink, &this.0.stop).await;
                }
                Err(error) => drop(begun.send(Err(error))),
            }
        });
        wait.await.map_err(|_| ExecError::Stopped)?
    }

    async fn start(&self, job: Job, place: OwnedSemaphorePermit) -> Result<Owned, ExecError> {
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
        let row = new_row(&job);
        let timeout = job.settings.limits.timeout;
        let host_id = self.0.host_ids.of(&job.tenant).ok_or(ExecError::NoHostId)?;
        let enforcement = parts.config.enforcement;
        let start = start_of(job, &path, flavors, &plan, host_id, enforcement);
        let (spawned, id) = tokio::join!(parts.engine.spawn(start), parts.store.insert_jail(&row));
        let id = id?;
        let running = match spawned.map_err(ExecError::Spawn) {
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
                let (steer, steered) = mpsc::channel(1);
                self.0.live.insert(id, steer);
                self.0.total.fetch_add(1, Ordering::Relaxed);
                parts.metrics.jail_started();
                Ok(Owned {
                    running,
                    served,
                    steered,
                    id,
                    timeout,
                    output_limit: parts.config.output_limit_bytes,
                    store: parts.store.clone(),
                    live: self.0.live.clone(),
                    metrics: parts.metrics.clone(),
                    place,
                })
            }
            Err(error) => {
                self.close_unstarted(id, &error).await;
                Err(error)
            }
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

impl Program {
    fn runtime(&self) -> Option<&'static str> {
        match self {
            Self::Command { .. } => None,
            Self::Code(code) => Some(code.runtime),
        }
    }
}

fn new_row(job: &Job) -> NewJail {
    NewJail {
        tenant: job.tenant.clone(),
        kind: job.kind,
        started_at: Timestamp::now(),
        session: job.session.as_ref().map(|session| session.id.clone()),
        label: job.label.clone(),
        parent: None,
        config: job.settings.shown(),
    }
}

fn start_of(
    job: Job,
    path: &str,
    flavors: Vec<(String, PathBuf)>,
    plan: &Plan,
    host_id: u32,
    enforcement: Enforcement,
) -> Start {
    let mut environment = vec![
        ("PATH".to_owned(), path.to_owned()),
        ("HOME".to_owned(), "/home/agent".to_owned()),
        ("LANG".to_owned(), "C.UTF-8".to_owned()),
    ];
    environment.extend(job.session.into_iter().flat_map(|session| session.environment));
    let limits = job.settings.limits.of_jail();
    let profile = job.settings.profile();
    let (program, arguments, code) = match job.program {
        Program::Command { program, arguments } => (program, arguments, None),
        Program::Code(code) => {
            let file = format!("/workspace/{}", code.file);
            (code.runtime.to_owned(), vec![file], Some((code.file.to_owned(), code.text)))
        }
    };
    Start {
        command: Some(Command { program, arguments, environment, directory: WORKSPACE.to_owned() }),
        host_id,
        stdin: Stdin::Empty,
        workspace: Tree::Fresh { bytes: TREE_BYTES, access: Access::ReadOnly },
        output: Tree::Fresh { bytes: TREE_BYTES, access: Access::ReadWrite },
        code,
        flavors,
        network: plan.network().clone(),
        profile,
        limits,
        cpu_time: None,
        enforcement,
    }
}
