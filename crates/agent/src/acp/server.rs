//! One server: a stream of events, and the agents that speak on it.
//!
//! ```text
//!            POST                    idle, or it died
//!   stopped ──────▶ an agent runs ──────────────────▶ stopped ──▶ …    DELETE ──▶ (gone)
//!            start                                    what was said stays
//! ```
//!
//! An agent that is started again hears again how its connection was opened, and sessions are loaded when
//! they are asked for: a client sees no difference but the time it takes.

mod opening;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use serde_json::value::RawValue;
use tokio::sync::{Mutex as AsyncMutex, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::dialect;
use super::envelope::{Envelope, Kind, NO_SUCH_RESOURCE};
use super::failure::{deaf, exited, raw_envelope, with_stderr};
use super::feed::Feed;
use super::journal::{Journal, ServerRow};
use super::process::{AgentProcess, Answer, Publish, Said, Start};
use super::seat::{Env, Seat, Seats, without_env};
use super::sessions::Tracker;
use crate::agents::Agents;
use crate::config::{AgentLimits, Environment};
use crate::problem::{Code, Problem};
use crate::processes::Spawner;
use crate::settings::Settings;
use crate::wire::now_ms;

/// How long the end of a client's stream may take to be seen.
const LEAVING: Duration = Duration::from_millis(300);

/// Bytes of messages on their way to the agent of one server.
const ROOM_BYTES: usize = 32 * 1024 * 1024;

/// How long a cancellation waits for another client's answer. Of several, each is shown what the agent asks, and
/// one that does not know what to say cancels at once.
const SECOND_VOICE: Duration = Duration::from_secs(1);

/// What all servers share.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) journal: Journal,
    pub(super) spawner: Spawner,
    pub(super) environment: Arc<Environment>,
    pub(super) agents: Agents,
    pub(super) settings: Settings,
    pub(super) home: PathBuf,
    pub(super) limits: AgentLimits,
    pub(super) owners: TaskTracker,
    /// Agents that run.
    pub(super) running: AtomicUsize,
    /// Processes so far, over all runs of this program: ids of their requests must not repeat.
    pub(super) numbers: AtomicU64,
}

/// A server.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) id: String,
    pub(super) key: i64,
    /// `None`: it speaks the Python client's dialect, and starts the agents that are asked for.
    pub(super) agent: Option<String>,
    pub(super) created_ms: u64,
    pub(super) feed: Feed,
    pub(super) context: Arc<Context>,
    initialize: Mutex<Option<String>>,
    processes: Mutex<HashMap<String, Running>>,
    pub(super) seats: Seats,
    /// What may be on its way from clients to the agent, in bytes: who comes with more waits with it unread.
    room: Arc<Semaphore>,
    /// Held while an agent is being started: who comes meanwhile gets the same.
    starting: AsyncMutex<()>,
    /// Ends a start that is under way, an install included.
    stop: Mutex<CancellationToken>,
    used_ms: AtomicU64,
}

#[derive(Debug)]
struct Running {
    process: Arc<AgentProcess>,
    since_ms: u64,
    /// Given back when this is dropped.
    _place: Place,
}

/// A place among the agents that may run at once.
#[derive(Debug)]
struct Place(Arc<Context>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Server {
    pub(super) fn new(context: Arc<Context>, row: ServerRow) -> Self {
        let feed = Feed::new(context.journal.clone(), row.key, row.last);
        Self {
            id: row.id,
            key: row.key,
            agent: row.agent,
            created_ms: row.created_ms,
            feed,
            context,
            initialize: Mutex::new(row.initialize),
            processes: Mutex::default(),
            seats: Seats::default(),
            room: Arc::new(Semaphore::new(ROOM_BYTES)),
            starting: AsyncMutex::default(),
            stop: Mutex::default(),
            used_ms: AtomicU64::new(now_ms()),
        }
    }

    /// Waits until there is room for a message of so many bytes.
    pub(super) async fn room(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let bytes = u32::try_from(bytes.min(ROOM_BYTES)).unwrap_or(u32::MAX);
        Arc::clone(&self.room).acquire_many_owned(bytes).await.ok()
    }

    /// Takes a message of a client's. Gives the answer of a request.
    pub(super) async fn post(
        self: Arc<Self>,
        envelope: Envelope,
    ) -> Result<Option<Box<RawValue>>, Problem> {
        self.used_ms.store(now_ms(), Ordering::Relaxed);
        let (envelope, env) = without_env(envelope)?;
        self.feed.note(envelope.session(), envelope.text()).await;
        let posted = self.act(envelope, env).await;
        self.feed.keep().await;
        self.used_ms.store(now_ms(), Ordering::Relaxed);
        posted
    }

    async fn act(
        &self,
        envelope: Envelope,
        env: Option<Env>,
    ) -> Result<Option<Box<RawValue>>, Problem> {
        match (envelope.kind(), &self.agent) {
            (Kind::Request, None) => dialect::request(self, envelope, env).await.map(Some),
            (Kind::Request, Some(agent)) => self.request(agent, envelope, env).await.map(Some),
            (Kind::Notification, _) => {
                for process in self.alive() {
                    if envelope.session().is_none_or(|session| process.has_open(&session)) {
                        let sent = process.notify(envelope.clone()).await;
                        sent.map_err(|_| deaf(&process.agent))?;
                    }
                }
                Ok(None)
            }
            (Kind::Response, _) => {
                let id = envelope.id_text().unwrap_or_default();
                if self.agent.is_none() && dialect::cancels(&envelope) && self.feed.readers() > 1 {
                    tokio::time::sleep(SECOND_VOICE).await;
                }
                // To something that is over: nothing that a client could do about it.
                if let Some(process) = self.alive().into_iter().find(|process| process.asked(&id)) {
                    process.notify(envelope).await.map_err(|_| deaf(&process.agent))?;
                }
                Ok(None)
            }
        }
    }

    async fn request(
        &self,
        agent: &str,
        envelope: Envelope,
        env: Option<Env>,
    ) -> Result<Box<RawValue>, Problem> {
        let method = envelope.method().unwrap_or_default();
        let id = envelope.id().map_or_else(|| RawValue::NULL.to_owned(), ToOwned::to_owned);
        if method == "initialize" {
            self.set_initialize(&envelope.params()).await?;
        }
        let seat = match env {
            Some(env) => self.own_seat(agent, env),
            None => self.seat(envelope.session().as_deref(), agent),
        };
        let process = self.process(&seat, method != "initialize").await?;
        let mut envelope = envelope;
        if matches!(method.as_str(), "session/new" | "session/load" | "session/resume") {
            envelope = self.amended(agent, envelope).await;
        } else if method != "initialize"
            && let Some(session) = envelope.session()
            && let Err(refused) = self.reopen(&process, &session).await?
        {
            return Ok(raw_envelope(&Envelope::error(
                &id,
                NO_SUCH_RESOURCE,
                &refused,
                Value::Null,
            )));
        }
        let answer = self.ask(&process, envelope, Publish::Feed, false).await?;
        if method == "initialize" && answer.0.has("result") {
            drop(process.capabilities.set(answer.0.member("result")));
        }
        if method == "session/new" {
            self.seats.take(answer.0.member("result")["sessionId"].as_str(), seat);
        }
        Ok(raw_envelope(&with_stderr(answer.0, &process)))
    }

    /// Asks an agent, not longer than its method may take.
    pub(super) async fn ask(
        &self,
        process: &AgentProcess,
        envelope: Envelope,
        publish: Publish,
        gather: bool,
    ) -> Result<(Envelope, Said), Problem> {
        let method = envelope.method().unwrap_or_default();
        let asked = process.request(envelope, publish, gather);
        let answer = if method == "session/prompt" {
            // As long as it takes.
            asked.await
        } else {
            let limit = self.context.limits.request_timeout;
            timeout(limit, asked).await.map_err(|_| {
                let text = format!("{} did not answer {method} within {limit:?}", process.agent);
                Problem::new(Code::Timeout, text)
            })?
        };
        match answer {
            Answer::Came { envelope, said } => Ok((envelope, said)),
            Answer::Exited(exit) => Err(exited(&process.agent, &exit)),
            Answer::Deaf => Err(deaf(&process.agent)),
        }
    }

    /// The process of an agent, started if it does not run. `opened`: the connection is opened as the
    /// client did before.
    pub(super) async fn process(
        &self,
        seat: &Seat,
        opened: bool,
    ) -> Result<Arc<AgentProcess>, Problem> {
        let stop = self.stop_token().clone();
        let started = stop.run_until_cancelled(self.started(seat, opened)).await;
        started.unwrap_or_else(|| {
            let text = format!("{} was ended while {} was being started", self.id, seat.agent());
            Err(Problem::conflict(text))
        })
    }

    fn stop_token(&self) -> MutexGuard<'_, CancellationToken> {
        self.stop.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn processes(&self) -> MutexGuard<'_, HashMap<String, Running>> {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn alive_of(&self, key: &str) -> Option<Arc<AgentProcess>> {
        let processes = self.processes();
        let running = processes.get(key).filter(|running| running.process.is_alive());
        running.map(|running| Arc::clone(&running.process))
    }

    async fn started(&self, seat: &Seat, opened: bool) -> Result<Arc<AgentProcess>, Problem> {
        let agent = seat.agent();
        let _starting = self.starting.lock().await;
        if let Some(process) = self.alive_of(seat.key()) {
            return Ok(process);
        }
        drop(self.processes().remove(seat.key()));
        let place = self.place()?;
        let launch = self.context.agents.launch(agent).await?;
        let process = AgentProcess::start(Start {
            spawner: &self.context.spawner,
            environment: &self.context.environment,
            launch,
            agent,
            home: self.context.home.clone(),
            number: self.context.numbers.fetch_add(1, Ordering::Relaxed),
            feed: self.feed.clone(),
            tracker: self.tracker(agent),
            owners: &self.context.owners,
            alone: self.agent.is_some() && !seat.is_own(),
            own: seat.env(),
        })
        .await?;
        let running = Running { process: Arc::clone(&process), since_ms: now_ms(), _place: place };
        drop(self.processes().insert(seat.key().to_owned(), running));
        if opened && let Some(params) = self.initialize() {
            self.open(&process, &params).await?;
        }
        Ok(process)
    }

    /// The seat of a session, or of all that have none of their own.
    pub(super) fn seat(&self, session: Option<&str>, agent: &str) -> Seat {
        self.seats.of(session).unwrap_or_else(|| Seat::shared(agent))
    }

    /// A process for a session that has an environment of its own.
    pub(super) fn own_seat(&self, agent: &str, env: Env) -> Seat {
        Seat::own(agent, env, self.context.numbers.fetch_add(1, Ordering::Relaxed))
    }

    fn place(&self) -> Result<Place, Problem> {
        let most = self.context.limits.most;
        if self.context.running.fetch_add(1, Ordering::AcqRel) >= most {
            self.context.running.fetch_sub(1, Ordering::AcqRel);
            return Err(Problem::conflict(format!(
                "{most} agents run already, as many as may; end one, or start the server with a larger --max-agents"
            )));
        }
        Ok(Place(Arc::clone(&self.context)))
    }

    fn tracker(&self, agent: &str) -> Tracker {
        Tracker {
            journal: self.context.journal.clone(),
            server: self.key,
            agent: agent.to_owned(),
            connection: self.id.clone(),
        }
    }

    /// Whether an HTTP error would end the client's whole connection, and with it the program: so do the
    /// published TypeScript clients'. They are told of failures in JSON-RPC's words.
    pub(super) fn breaks_on_errors(&self) -> bool {
        let name = self.initialize().map(|params| params["clientInfo"]["name"].clone());
        name.is_some_and(|name| name == "sandbox-agent-sdk" || name == "acp-http-client")
    }

    /// Processes that run.
    pub(super) fn alive(&self) -> Vec<Arc<AgentProcess>> {
        let processes = self.processes();
        let running = processes.values().map(|running| Arc::clone(&running.process));
        running.filter(|process| process.is_alive()).collect()
    }

    /// Whether an agent owes an answer.
    pub(super) fn is_busy(&self) -> bool {
        self.alive().iter().any(|process| process.owes())
    }

    /// Which agents run, since when.
    pub(super) fn running(&self) -> Vec<(String, u64)> {
        let processes = self.processes();
        let alive = processes.values().filter(|running| running.process.is_alive());
        alive.map(|running| (running.process.agent.clone(), running.since_ms)).collect()
    }

    /// Ends the agents; what was said stays.
    pub(super) async fn stop(&self) {
        std::mem::take(&mut *self.stop_token()).cancel();
        // One that was just started is in the map by then, or was dropped.
        let _starting = self.starting.lock().await;
        let processes = std::mem::take(&mut *self.processes());
        for running in processes.values() {
            running.process.end();
        }
        for running in processes.values() {
            running.process.until_ended().await;
        }
    }

    /// Ends the server.
    pub(super) async fn close(&self) {
        self.stop().await;
        self.feed.close();
    }

    /// Ends the agents of a shared server if its last client has left.
    pub(super) async fn stop_if_left(&self) {
        // It has closed its stream by now, but we may not have seen it yet.
        tokio::time::sleep(LEAVING).await;
        let busy = self.alive().iter().any(|process| process.is_busy());
        if self.feed.readers() == 0 && !busy {
            self.stop().await;
        }
    }

    /// Ends agents that nobody asks and nobody listens to.
    pub(super) async fn stop_if_idle(&self, idle_ms: u64) {
        let unused = now_ms().saturating_sub(self.used_ms.load(Ordering::Relaxed));
        if unused < idle_ms || self.feed.readers() > 0 {
            return;
        }
        let alive = self.alive();
        if !alive.is_empty() && alive.iter().all(|process| !process.is_busy()) {
            tracing::info!(server.id = %self.id, "ending an idle agent");
            self.stop().await;
        }
    }
}
