//! One agent process: its lines in, its lines out, and who waits for which answer.

mod output;
mod owner;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rustix::pipe::{PipeFlags, pipe_with};
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::net::unix::pipe;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::owner::Owner;
use super::envelope::{Envelope, Kind, raw};
use super::feed::Feed;
use super::sessions::Tracker;
use crate::agents::Launch;
use crate::config::Environment;
use crate::processes::{Order, SpawnError, Spawner, Stdios};

/// Envelopes that may wait for an agent that does not read, and bytes of them.
const QUEUE: usize = 256;
const QUEUE_BYTES: u32 = 64 * 1024 * 1024;

/// How long a message waits for room among them.
const ROOM: Duration = Duration::from_secs(10);

/// Requests whose answers nobody waits for any more; the oldest are forgotten.
const ABANDONED: usize = 1000;

/// A message on its way, and the room it takes.
type Queued = (Bytes, OwnedSemaphorePermit);

/// The agent does not read what it is sent.
#[derive(Debug)]
pub(super) struct Deaf;

/// How a request to an agent ended.
#[derive(Debug)]
pub(super) enum Answer {
    /// It was not even taken.
    Deaf,
    /// With an answer, under the client's id. With it what the agent said meanwhile, if that was wanted.
    Came { envelope: Envelope, said: Said },
    /// With the agent's end.
    Exited(Exit),
}

/// What an agent said in a turn, up to a limit.
#[derive(Debug, Default)]
pub(super) struct Said {
    pub(super) text: String,
    pub(super) truncated: bool,
}

/// An agent's end.
#[derive(Debug, Clone, Default)]
pub(super) struct Exit {
    pub(super) code: Option<i32>,
    pub(super) stderr: String,
}

/// What to do with an answer beside telling who waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Publish {
    /// It goes to the feed, too.
    Feed,
    /// Only who asked hears it.
    Asker,
}

/// A running agent.
#[derive(Debug)]
pub(super) struct AgentProcess {
    pub(super) agent: String,
    to_agent: mpsc::Sender<Queued>,
    /// Bytes that may wait for it.
    room: Arc<Semaphore>,
    shared: Arc<Shared>,
    ending: CancellationToken,
    ended: CancellationToken,
    /// Held while a session is loaded: who wants the same waits, and finds it open.
    pub(super) loading: tokio::sync::Mutex<()>,
    /// What it said of itself when it was initialized.
    pub(super) capabilities: tokio::sync::OnceCell<Value>,
}

#[derive(Debug)]
struct Shared {
    /// Makes the ids of its requests differ from those of any other process.
    number: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last: u64,
    pending: HashMap<u64, Pending>,
    /// Requests of the agent's, by the id under which clients see them.
    asked: HashMap<String, Asked>,
    asked_order: VecDeque<String>,
    stderr: VecDeque<String>,
    /// Sessions whose history is being told again: clients have it already.
    muted: HashSet<String>,
    open: HashSet<String>,
    exit: Option<Exit>,
}

#[derive(Debug)]
struct Pending {
    client_id: Box<RawValue>,
    method: String,
    params: Value,
    session: Option<String>,
    publish: Publish,
    said: Option<Said>,
    tell: oneshot::Sender<Answer>,
}

#[derive(Debug)]
struct Asked {
    id: Box<RawValue>,
    /// Of a permission request.
    options: Value,
}

/// What is needed to start one.
#[derive(Debug)]
pub(super) struct Start<'a> {
    pub(super) spawner: &'a Spawner,
    pub(super) environment: &'a Environment,
    pub(super) launch: Launch,
    pub(super) agent: &'a str,
    pub(super) home: PathBuf,
    pub(super) number: u64,
    pub(super) feed: Feed,
    pub(super) tracker: Tracker,
    pub(super) owners: &'a TaskTracker,
    /// Streams of a server with one agent end when that does.
    pub(super) alone: bool,
    /// Variables for this process alone.
    pub(super) own: &'a BTreeMap<String, String>,
}

impl AgentProcess {
    /// Starts an agent, and the task that owns it.
    pub(super) async fn start(start: Start<'_>) -> Result<Arc<Self>, SpawnError> {
        let os =
            |source: std::io::Error| SpawnError::Os { command: start.agent.to_owned(), source };
        let (stdin, to) = pipe_with(PipeFlags::CLOEXEC).map_err(|errno| os(errno.into()))?;
        let (from, stdout) = pipe_with(PipeFlags::CLOEXEC).map_err(|errno| os(errno.into()))?;
        let (errors, stderr) = pipe_with(PipeFlags::CLOEXEC).map_err(|errno| os(errno.into()))?;
        for ours in [&to, &from, &errors] {
            rustix::io::ioctl_fionbio(ours, true).map_err(|errno| os(errno.into()))?;
        }
        let to = pipe::Sender::from_owned_fd(to).map_err(os)?;
        let from = pipe::Receiver::from_owned_fd(from).map_err(os)?;
        let errors = pipe::Receiver::from_owned_fd(errors).map_err(os)?;
        let mut env = start.environment.base.clone();
        env.extend(start.launch.environment(&start.environment.server));
        env.extend(start.own.clone());
        let (launch, mut env) = (start.launch.clone(), env);
        let env = crate::blocking::blocking(move || {
            launch.translate(&mut env);
            env
        })
        .await;
        let order = Order {
            command: start.launch.command.clone(),
            args: start.launch.args.clone(),
            cwd: Some(start.home),
            env,
            stdio: Stdios::Apart { stdin, stdout, stderr },
        };
        let spawned = start.spawner.spawn(order).await?;
        let (to_agent, queued) = mpsc::channel(QUEUE);
        let shared = Arc::new(Shared { number: start.number, state: Mutex::default() });
        let process = Arc::new(Self {
            agent: start.agent.to_owned(),
            to_agent,
            room: Arc::new(Semaphore::new(QUEUE_BYTES as usize)),
            shared: Arc::clone(&shared),
            ending: CancellationToken::new(),
            ended: CancellationToken::new(),
            loading: tokio::sync::Mutex::new(()),
            capabilities: tokio::sync::OnceCell::new(),
        });
        let owner = Owner {
            spawned,
            shared,
            feed: start.feed,
            tracker: start.tracker,
            ending: process.ending.clone(),
            ended: process.ended.clone(),
            alone: start.alone,
        };
        start.owners.spawn(owner.own(to, queued, from, errors));
        Ok(process)
    }

    pub(super) fn is_alive(&self) -> bool {
        !self.ended.is_cancelled() && !self.ending.is_cancelled()
    }

    /// Whether anybody waits for it.
    pub(super) fn is_busy(&self) -> bool {
        self.shared.state().pending.values().any(|pending| !pending.tell.is_closed())
    }

    /// Whether it has something to answer, also if nobody waits for it any more.
    pub(super) fn owes(&self) -> bool {
        !self.shared.state().pending.is_empty()
    }

    /// Whether a session was opened in this process.
    pub(super) fn has_open(&self, session: &str) -> bool {
        self.shared.state().open.contains(session)
    }

    pub(super) fn opened(&self, session: &str) {
        self.shared.state().open.insert(session.to_owned());
    }

    /// A session's settings have changed: its next turn loads it again, if the agent can.
    pub(super) fn to_be_loaded_again(&self, session: &str) {
        let told = self.capabilities.get();
        if told.is_some_and(|told| told["agentCapabilities"]["loadSession"] == true) {
            self.shared.state().open.remove(session);
        }
    }

    /// Whether the history of a session goes to the feed.
    pub(super) fn mute(&self, session: &str, muted: bool) {
        let mut state = self.shared.state();
        if muted {
            state.muted.insert(session.to_owned());
        } else {
            state.muted.remove(session);
        }
    }

    /// Sends a request; gives the answer when it comes.
    pub(super) async fn request(
        &self,
        envelope: Envelope,
        publish: Publish,
        gather: bool,
    ) -> Answer {
        let client_id = envelope.id().map_or_else(|| RawValue::NULL.to_owned(), ToOwned::to_owned);
        let (tell, told) = oneshot::channel();
        let number = {
            let mut state = self.shared.state();
            if let Some(exit) = &state.exit {
                return Answer::Exited(exit.clone());
            }
            state.last += 1;
            let pending = Pending {
                client_id,
                method: envelope.method().unwrap_or_default(),
                params: light(&envelope),
                session: envelope.session(),
                publish,
                said: gather.then(Said::default),
                tell,
            };
            let number = state.last;
            state.pending.insert(number, pending);
            state.forget_the_abandoned();
            number
        };
        let mut envelope = envelope.with_id(raw(&number.into()));
        let room = envelope.take_room();
        let text = envelope.text();
        drop(envelope);
        let sent = self.send(text).await;
        drop(room);
        if let Err(Deaf) = sent {
            self.shared.state().pending.remove(&number);
            return Answer::Deaf;
        }
        told.await.unwrap_or_else(|_| Answer::Exited(self.exit()))
    }

    /// Sends something that has no answer. A response is sent under the id that the agent gave; one to
    /// nothing is dropped.
    pub(super) async fn notify(&self, envelope: Envelope) -> Result<(), Deaf> {
        if envelope.kind() != Kind::Response {
            return self.send(envelope.text()).await;
        }
        let Some(id) = envelope.id_text() else { return Ok(()) };
        let asked = {
            let state = self.shared.state();
            state.asked.get(&id).map(|asked| (asked.id.clone(), asked.options.clone()))
        };
        let Some((own, options)) = asked else { return Ok(()) };
        let envelope = super::dialect::permission(envelope, &options).with_id(own);
        self.send(envelope.text()).await?;
        // Not before: a client that goes meanwhile would have taken the question with it.
        self.shared.state().asked.remove(&id);
        Ok(())
    }

    /// Whether this process waits for a response with this id.
    pub(super) fn asked(&self, id: &str) -> bool {
        self.shared.state().asked.contains_key(id)
    }

    async fn send(&self, mut text: String) -> Result<(), Deaf> {
        text.push('\n');
        let bytes = u32::try_from(text.len()).unwrap_or(u32::MAX).min(QUEUE_BYTES);
        let room = Arc::clone(&self.room).acquire_many_owned(bytes);
        let sent = timeout(ROOM, async {
            let Ok(room) = room.await else { return };
            // Gone: who waits for an answer hears of the end.
            drop(self.to_agent.send((text.into(), room)).await);
        });
        sent.await.map_err(|_| Deaf)
    }

    pub(super) fn exit(&self) -> Exit {
        self.shared.state().exit.clone().unwrap_or_default()
    }

    /// The last lines of its standard error.
    pub(super) fn stderr(&self) -> String {
        self.shared.state().stderr_text()
    }

    /// Begins to end it: end of input, SIGTERM, SIGKILL.
    pub(super) fn end(&self) {
        self.ending.cancel();
    }

    pub(super) async fn until_ended(&self) {
        self.ended.cancelled().await;
    }
}

/// What is remembered of a request until its answer: not the prompt.
fn light(envelope: &Envelope) -> Value {
    match envelope.method().as_deref() {
        Some("session/prompt") | None => Value::Null,
        Some(_) => envelope.params(),
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Requests that nobody waits for: their answers would still go to the feed under the client's id.
    fn forget_the_abandoned(&mut self) {
        if self.pending.len() <= ABANDONED {
            return;
        }
        let abandoned = self.pending.iter().filter(|(_, pending)| pending.tell.is_closed());
        if let Some(oldest) = abandoned.map(|(number, _)| *number).min() {
            self.pending.remove(&oldest);
        }
    }

    fn stderr_text(&self) -> String {
        let lines: Vec<&str> = self.stderr.iter().map(String::as_str).collect();
        lines.join("\n")
    }
}
