//! The servers there are.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use tokio::sync::{Mutex as AsyncMutex, OnceCell, watch};
use tokio_util::task::TaskTracker;

use super::journal::{Journal, JournalError, ServerRow};
use super::server::{Context, Server};
use crate::agents::Agents;
use crate::config::{AgentLimits, Environment};
use crate::problem::Problem;
use crate::processes::Spawner;
use crate::settings::Settings;
use crate::wire::now_ms;

/// How often idle agents are looked for.
const SWEEP: Duration = Duration::from_secs(5);

/// The servers. Cheap to clone. The journal is opened with the first question about them: who only wants
/// files and processes pays nothing for it.
#[derive(Debug, Clone)]
pub(crate) struct Servers {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    needs: Needs,
    opened: OnceCell<Arc<Context>>,
    table: Mutex<BTreeMap<String, Arc<Server>>>,
    /// Held while a server is made: two clients that come at once get the same.
    making: AsyncMutex<()>,
    /// Changes with each server that comes.
    news: watch::Sender<u64>,
    tasks: TaskTracker,
}

/// What servers are made of.
#[derive(Debug)]
pub(crate) struct Needs {
    pub(crate) state: PathBuf,
    pub(crate) spawner: Spawner,
    pub(crate) environment: Arc<Environment>,
    pub(crate) agents: Agents,
    pub(crate) settings: Settings,
    pub(crate) home: PathBuf,
    pub(crate) limits: AgentLimits,
}

impl Servers {
    pub(crate) fn new(needs: Needs) -> Self {
        let inner = Inner {
            needs,
            opened: OnceCell::new(),
            table: Mutex::default(),
            making: AsyncMutex::default(),
            news: watch::Sender::new(0),
            tasks: TaskTracker::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Server>>> {
        self.inner.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn context(&self) -> Result<&Arc<Context>, JournalError> {
        self.inner.opened.get_or_try_init(|| self.open()).await
    }

    async fn open(&self) -> Result<Arc<Context>, JournalError> {
        let needs = &self.inner.needs;
        let directory = needs.state.clone();
        let journal = crate::blocking::blocking(move || Journal::open(&directory)).await?;
        let rows = journal.servers().await?;
        let context = Arc::new(Context {
            journal,
            spawner: needs.spawner.clone(),
            environment: Arc::clone(&needs.environment),
            agents: needs.agents.clone(),
            settings: needs.settings.clone(),
            home: needs.home.clone(),
            limits: needs.limits.clone(),
            owners: TaskTracker::new(),
            running: AtomicUsize::new(0),
            // Processes of earlier runs had smaller numbers.
            numbers: AtomicU64::new(now_ms()),
        });
        let mut table = self.table();
        for row in rows {
            table.insert(row.id.clone(), Arc::new(Server::new(Arc::clone(&context), row)));
        }
        Ok(context)
    }

    /// Opens what was kept, if something was; and looks for idle agents from then on.
    pub(crate) async fn run(self) {
        loop {
            tokio::time::sleep(SWEEP).await;
            let Some(idle) = self.inner.needs.limits.idle else { continue };
            let idle_ms = u64::try_from(idle.as_millis()).unwrap_or(u64::MAX);
            let servers: Vec<_> = self.table().values().cloned().collect();
            for server in servers {
                server.stop_if_idle(idle_ms).await;
            }
        }
    }

    pub(super) async fn get(&self, id: &str) -> Result<Option<Arc<Server>>, Problem> {
        self.context().await?;
        Ok(self.table().get(id).cloned())
    }

    pub(super) async fn by_key(&self, key: i64) -> Result<Option<Arc<Server>>, Problem> {
        self.context().await?;
        Ok(self.table().values().find(|server| server.key == key).cloned())
    }

    /// All of them, in the order of their ids.
    pub(super) async fn list(&self) -> Result<Vec<Arc<Server>>, Problem> {
        self.context().await?;
        Ok(self.table().values().cloned().collect())
    }

    /// Agents that run, by their names, each with the instant of its start. Only what is known already.
    pub(crate) fn running(&self) -> Vec<(String, u64)> {
        self.table().values().flat_map(|server| server.running()).collect()
    }

    /// The server of an id, made if there is none.
    pub(super) async fn get_or_make(
        &self,
        id: &str,
        agent: Option<&str>,
    ) -> Result<Arc<Server>, Problem> {
        let context = Arc::clone(self.context().await?);
        let _making = self.inner.making.lock().await;
        let found = self.table().get(id).cloned();
        if let Some(server) = found {
            return match (agent, &server.agent) {
                (Some(asked), Some(there)) if asked != there => Err(Problem::conflict(format!(
                    "server '{id}' already exists for agent '{there}'; requested '{asked}'"
                ))),
                _ => Ok(server),
            };
        }
        let created_ms = now_ms();
        let agent = agent.map(str::to_owned);
        let key = context.journal.add_server(id.to_owned(), agent.clone(), created_ms).await?;
        let row =
            ServerRow { key, id: id.to_owned(), agent, created_ms, initialize: None, last: (0, 0) };
        let server = Arc::new(Server::new(context, row));
        self.table().insert(id.to_owned(), Arc::clone(&server));
        self.inner.news.send_modify(|news| *news += 1);
        Ok(server)
    }

    /// Waits until there is a server of this id.
    pub(super) async fn appears(&self, id: &str) -> Option<Arc<Server>> {
        let mut news = self.inner.news.subscribe();
        loop {
            news.borrow_and_update();
            if let Some(server) = self.table().get(id).cloned() {
                return Some(server);
            }
            news.changed().await.ok()?;
        }
    }

    /// What can be set of an agent, as its newest session told it.
    pub(crate) async fn config_options(
        &self,
        agent: &str,
    ) -> Result<Option<serde_json::Value>, Problem> {
        let journal = &self.context().await?.journal;
        let text = journal.newest_options(agent.to_owned()).await?;
        let told = text.and_then(|text| serde_json::from_str(&text).ok());
        Ok(told.or_else(|| (agent == "mock").then(super::mock::options)))
    }

    /// Ends a server, if there is one. It is gone at once; its agent goes in a moment.
    pub(super) async fn remove(&self, id: &str) -> Result<(), Problem> {
        let context = Arc::clone(self.context().await?);
        let shared = self.table().get(id).filter(|server| server.agent.is_none()).cloned();
        if let Some(server) = shared {
            // Others may be there; and whoever leaves may come back to its sessions.
            self.inner.tasks.spawn(async move { server.stop_if_left().await });
            return Ok(());
        }
        let Some(server) = self.table().remove(id) else { return Ok(()) };
        let key = server.key;
        self.inner.tasks.spawn(async move { server.close().await });
        Ok(context.journal.end_server(key, now_ms()).await?)
    }

    /// Runs something to its end, whether or not the client that asked for it stays: dropped midway, it goes on as a
    /// task of its own.
    pub(super) fn finish<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Problem>> + Send + 'static,
    ) -> Finish<T> {
        Finish { work: Some(Box::pin(work)), tasks: self.inner.tasks.clone() }
    }

    /// Ends all agents; the servers stay, and start them again when they are asked.
    pub(crate) async fn stop_agents(&self) {
        let servers: Vec<_> = self.table().values().cloned().collect();
        let stops = servers.iter().map(|server| server.stop());
        futures_util::future::join_all(stops).await;
    }

    /// Ends everything.
    pub(crate) async fn end(&self) {
        self.stop_agents().await;
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
        if let Some(context) = self.inner.opened.get() {
            context.owners.close();
            context.owners.wait().await;
        }
    }
}

type Work<T> = Pin<Box<dyn Future<Output = Result<T, Problem>> + Send>>;

/// Work that is done to its end. See [`Servers::finish`].
pub(super) struct Finish<T: Send + 'static> {
    work: Option<Work<T>>,
    tasks: TaskTracker,
}

impl<T: Send + 'static> Future for Finish<T> {
    type Output = Result<T, Problem>;

    fn poll(mut self: Pin<&mut Self>, context: &mut std::task::Context<'_>) -> Poll<Self::Output> {
        let Some(work) = self.work.as_mut() else { return Poll::Pending };
        let polled = work.as_mut().poll(context);
        if polled.is_ready() {
            self.work = None;
        }
        polled
    }
}

impl<T: Send + 'static> Drop for Finish<T> {
    fn drop(&mut self) {
        if let Some(work) = self.work.take() {
            self.tasks.spawn(work);
        }
    }
}
