//! Admission, planning, and the birth of a job.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use ids::TenantId;
use jail::{Engine, Running, SpawnError};
use jiff::Timestamp;
use store::{JailEnd, JailKind, Store, StoreError};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::ask::Asker;
use super::birth::{Brought, new_row, start_of};
use super::error::ExecError;
use super::flavors;
use super::host_ids::HostIds;
use super::images::{self, Image};
use super::job::{Job, Program};
use super::live::LiveRows;
use super::meter::{Meter, Passing};
use super::options::Settings;
use super::owner::{self, Books, Cut, Event, Owned, Sink};
use super::places::{Place, Places};
use super::result::ExecResult;
use crate::config::{BaseUrl, ExecConfig};
use crate::metrics::Metrics;
use crate::network::{self, PhantomAccess, Plan, Served};

/// Events that may wait for a slow client. When they do, the jail's own output waits in its pipe.
pub(super) const EVENT_QUEUE: usize = 16;

/// Runs jobs. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Executor(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    parts: ExecutorParts,
    places: Places,
    /// Of those that live in workspaces: they stay, and must not keep commands from running.
    homes: Places,
    host_ids: HostIds,
    /// Numbers, below zero, of jobs without a row.
    unlisted: AtomicI64,
    live: LiveRows,
    passing: Passing,
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
    pub(crate) images: PathBuf,
    pub(crate) config: ExecConfig,
    pub(crate) metrics: Metrics,
}

impl Executor {
    pub(crate) fn new(parts: ExecutorParts) -> Self {
        let places = Places::new(parts.config.max_concurrent, parts.config.quotas.jails);
        let homes = Places::new(parts.config.max_agents, parts.config.quotas.agents);
        Self(Arc::new(Inner {
            host_ids: HostIds::new(parts.store.clone(), parts.config.first_host_id),
            parts,
            places,
            homes,
            unlisted: AtomicI64::new(0),
            live: LiveRows::default(),
            passing: Passing::default(),
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
        let born = self.begin(job, Sink::Result(result)).await?;
        Ok(Begun { id: born.id, pid: born.pid, enforced: born.enforced, wait })
    }

    /// Takes places for several jobs at once, or none.
    pub(crate) fn reserve(&self, tenant: &TenantId, number: u32) -> Result<Vec<Place>, ExecError> {
        self.0.places.take(tenant, number)
    }

    /// Takes a place for an agent that lives in a workspace until it is ended.
    pub(crate) fn reserve_home(&self, tenant: &TenantId) -> Result<Place, ExecError> {
        self.0.homes.take_one(tenant).map_err(|error| match error {
            ExecError::Quota(most) => ExecError::AgentQuota(most),
            _ => ExecError::TooManyAgents,
        })
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
        let path = flavors::search_path(&[], None);
        let brought = Brought::default();
        let start = start_of(&job, &path, brought, &plan, host_id, parts.config.enforcement);
        parts.engine.warm(&start).await.map_err(ExecError::Spawn)
    }

    pub(super) fn store(&self) -> &Store {
        &self.0.parts.store
    }

    /// Until the server is told to stop.
    pub(super) async fn stopping(&self) {
        self.0.stop.cancelled().await;
    }

    /// The search path inside a jail with these settings.
    pub(crate) fn search_path(&self, settings: &Settings) -> Result<String, ExecError> {
        let flavors = flavors::find(&self.0.parts.flavors, settings.flavors())?;
        let image = settings.image.as_deref();
        let image = image.map(|name| images::find(&self.0.parts.images, name)).transpose()?;
        Ok(flavors::search_path(&flavors, image.as_ref().and_then(Image::search_path)))
    }

    /// Kills what runs and waits until every row is closed.
    pub(crate) async fn close(&self) {
        self.0.stop.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    async fn begin(&self, mut job: Job, sink: Sink) -> Result<Born, ExecError> {
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
                    let (pid, enforced) =
                        (owned.running.jail.pid(), owned.running.enforced.clone());
                    drop(begun.send(Ok(Born { id: owned.books.id, pid, enforced })));
                    owner::own(owned, sink, &this.0.stop).await;
                }
                Err(error) => drop(begun.send(Err(error))),
            }
        });
        wait.await.map_err(|_| ExecError::Stopped)?
    }

    async fn start(&self, job: Job, place: Place) -> Result<Owned, ExecError> {
        let parts = &self.0.parts;
        let flavors = flavors::find(&parts.flavors, &job.settings.flavors)?;
        let image = job.settings.image.as_deref();
        let image = image.map(|name| images::find(&parts.images, name)).transpose()?;
        let phantom = job.session.as_ref().map(|session| PhantomAccess {
            proxy: parts.proxy.clone(),
            url: parts.proxy_url.clone(),
            session: session.id.clone(),
        });
        let plan = Plan::new(job.settings.mode.clone(), phantom.as_ref().map(|p| &p.url))?;
        let path = flavors::search_path(&flavors, image.as_ref().and_then(Image::search_path));
        let runtime = job.program.runtime();
        let host_id = self.0.host_ids.of(&job.tenant).await?;
        let enforcement = parts.config.enforcement;
        let brought = Brought { flavors, image };
        let start = start_of(&job, &path, brought, &plan, host_id, enforcement);
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
                let meter =
                    Meter::of(&job, parts.config.quotas.bytes, &parts.store, &self.0.passing);
                Ok(self.owned(job, running, served, place, (id, meter)))
            }
            Err(error) => {
                if job.listed {
                    self.close_unstarted(id, &error).await;
                }
                Err(error)
            }
        }
    }

    /// What the owner of a job that runs gets.
    fn owned(
        &self,
        mut job: Job,
        running: Running,
        served: Served,
        place: Place,
        (id, meter): (i64, Option<Meter>),
    ) -> Owned {
        let parts = &self.0.parts;
        let (asker, asked) = if let Some(asked) = job.asked.take() {
            (None, asked)
        } else {
            let (asker, asked) = Asker::new();
            (Some(asker), asked)
        };
        self.0.live.insert(id, asker);
        self.0.total.fetch_add(1, Ordering::Relaxed);
        parts.metrics.jail_started();
        Owned {
            running,
            served,
            asked,
            stdin: job.stdin,
            timeout: job.settings.limits.timeout,
            output_limit: parts.config.output_limit_bytes,
            metrics: parts.metrics.clone(),
            place,
            books: Books {
                id,
                listed: job.listed,
                held: job.held,
                meter,
                store: parts.store.clone(),
                live: self.0.live.clone(),
            },
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

    pub(super) async fn close_unstarted(&self, id: i64, error: &ExecError) {
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

/// What is known of a jail from its beginning.
#[derive(Debug)]
struct Born {
    id: i64,
    pid: u32,
    enforced: Vec<String>,
}

/// A job that runs.
#[derive(Debug)]
pub(crate) struct Begun {
    /// Of its row.
    pub(crate) id: i64,
    /// Of the jail's init, on the host.
    pub(crate) pid: u32,
    pub(crate) enforced: Vec<String>,
    wait: oneshot::Receiver<ExecResult>,
}

impl Begun {
    pub(crate) async fn wait(self) -> Result<ExecResult, ExecError> {
        self.wait.await.map_err(|_| ExecError::Stopped)
    }
}
