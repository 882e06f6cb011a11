//! The order of a server's life: state, engine, proxy, listeners, work, drain.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ids::{ServiceId, TenantId};
use jail::Engine;
use jiff::Timestamp;
use phantom::{Book, Door, LoadError, Proxy};
use secret::Secret;
use snapshot::Trees;
use store::{Store, StoreError};
use tokio::net::TcpListener;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::agents::{Agents, AgentsParts, Program};
use crate::app::{App, Parts, router};
use crate::config::Config;
use crate::credentials::Credentials;
use crate::exec::{Executor, ExecutorParts, Places};
use crate::gateway::{Forwarder, ForwarderParts};
use crate::git::{Cloner, ClonerParts};
use crate::identity::Settings;
use crate::keys::Keys;
use crate::layers::Layers;
use crate::metrics::Metrics;
use crate::rates::Rates;
use crate::sessions::Sessions;
use crate::state::StateError;
use crate::workspaces::{Live, Workspaces, WorkspacesParts};
use crate::{gateway, snapshots};

/// How often expired sessions are looked for.
const REAP: Duration = Duration::from_secs(60);

/// Snapshots that are read for clients at once: each holds a thread. Of all, and of one tenant.
const DOWNLOADS: usize = 64;
const DOWNLOADS_EACH: u64 = 8;

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("could not read what the proxy must know")]
    Load(#[from] LoadError),
    #[error(transparent)]
    Proxy(#[from] phantom::StartError),
    #[error("the trees of workspaces could not be opened")]
    Trees(#[source] std::io::Error),
    #[error(transparent)]
    Tls(#[from] phantom::TlsError),
    #[error("could not read the certificate authorities for clones ({path})")]
    Authorities { path: std::path::PathBuf, source: std::io::Error },
    #[error("a key from the environment was refused: {0}")]
    Seed(String),
    #[error("could not listen on {address} ({what})")]
    Listen { address: SocketAddr, what: &'static str, source: std::io::Error },
}

/// Serves until `stop`, then drains. `engine` is shut down with it.
pub async fn serve(
    config: Config,
    engine: Engine,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    let vault = Arc::new(config.state.vault()?);
    // Before anything is opened that would have to be closed: a port in use is found out at once.
    let api = listen(config.api_addr, "API").await?;
    let public_proxy = listen(config.proxy_addr, "phantom proxy").await?;
    let gateway_listener = match config.gateway_addr {
        Some(address) => Some(listen(address, "gateway").await?),
        None => None,
    };
    let store = Store::open(&config.state.database()).await?;
    close_abandoned(&store).await?;
    config.state.tidy_shelves();
    let book = Book::load(&store, Arc::clone(&vault)).await?;
    let phantom =
        phantom::Config { providers: config.providers.clone(), silence: config.upstream_silence };
    let proxy = Proxy::new(phantom, book, store.clone())?;
    let credentials = Credentials::new(store.clone(), Arc::clone(&vault), proxy.clone());
    seed(&credentials, &config.seeds).await?;
    let [trees, trash] = config.state.trees();
    let trees = Trees::open(trees, trash).map_err(ServeError::Trees)?;
    let forwarding = (TaskTracker::new(), CancellationToken::new());
    let made =
        Made { store: store.clone(), vault: Arc::clone(&vault), proxy: proxy.clone(), trees };
    let app = app(&config, &engine, made, credentials, &forwarding)?;
    let executor = app.executor.clone();
    // The first run need not be the slow one. Without ready jails it is, and works all the same.
    if let Err(error) = executor.warm(&TenantId::dev()).await {
        tracing::warn!(error = &error as &dyn std::error::Error, "no jails kept ready");
    }
    let sessions = app.sessions.clone();
    tracing::info!(
        api.addr = %config.api_addr,
        proxy.addr = %config.proxy_addr,
        state = %config.state.path().display(),
        "agentjail serves on http://{}",
        config.api_addr
    );
    let grace = config.grace;
    let keys = config.keys.map(|keys| Keys::new(keys, store.clone(), vault));
    let (workspaces, forwarder) = (app.workspaces.clone(), app.forwarder.clone());
    let agents = app.agents.clone();
    let router = router(App::new(Parts { keys, ..app }));
    tokio::join!(
        httpkit::serve(api, router, stop.clone(), grace),
        proxy.serve(public_proxy, Door::Public, stop.clone()),
        reap(sessions, stop.clone()),
        snapshots::keep_house(
            config.persistence,
            (workspaces.clone(), agents),
            store.clone(),
            stop.clone()
        ),
        async {
            if let Some(listener) = gateway_listener {
                let store = store.clone();
                gateway::serve(listener, store, workspaces, forwarder, stop.clone(), grace).await;
            }
        },
        // Runs are killed as soon as a stop is asked for: the drain waits for their answers.
        async {
            stop.cancelled().await;
            executor.close().await;
            forwarding.1.cancel();
            forwarding.0.close();
            forwarding.0.wait().await;
        },
    );
    proxy.close(grace).await;
    engine.shutdown().await;
    store.close().await;
    tracing::info!("agentjail has stopped");
    Ok(())
}

/// What was opened.
struct Made {
    store: Store,
    vault: Arc<secret::Vault>,
    proxy: Proxy,
    trees: Arc<Trees>,
}

fn app(
    config: &Config,
    engine: &Engine,
    made: Made,
    credentials: Credentials,
    forwarding: &(TaskTracker, CancellationToken),
) -> Result<Parts, ServeError> {
    let Made { store, vault, proxy, trees } = made;
    let metrics = Metrics::new();
    let executor = Executor::new(ExecutorParts {
        engine: engine.clone(),
        store: store.clone(),
        proxy: proxy.clone(),
        proxy_url: config.proxy_base_url.clone(),
        dialler: config.dialler.clone(),
        flavors: config.state.flavors(),
        images: config.state.images(),
        config: config.exec,
        metrics: metrics.clone(),
    });
    let url = config.proxy_base_url.clone();
    let quotas = config.exec.quotas;
    let pool = config.pool_dir.clone().unwrap_or_else(|| config.state.objects());
    let live = Live::default();
    let workspaces = Workspaces::new(WorkspacesParts {
        store: store.clone(),
        layers: Layers::new(store.clone(), trees, pool.clone(), executor.tasks().clone()),
        executor: executor.clone(),
        cloner: Cloner::new(ClonerParts {
            executor: executor.clone(),
            proxy: proxy.clone(),
            proxy_url: url.clone(),
            vault: Arc::clone(&vault),
            authorities: authorities(config)?,
        }),
        live: live.clone(),
        flavors: config.state.flavors(),
        images: config.state.images(),
        quotas,
        admission: tokio::sync::Mutex::default(),
    });
    let forwarder = forwarder(config, &live, forwarding)?;
    let sessions =
        Sessions::new(store.clone(), Arc::clone(&vault), proxy.clone(), url, quotas.sessions);
    let agents = Agents::new(AgentsParts {
        store: store.clone(),
        vault,
        workspaces: workspaces.clone(),
        sessions: sessions.clone(),
        executor: executor.clone(),
        live: live.clone(),
        flavors: config.state.flavors(),
        program: Program::new(config.state.program()),
    });
    Ok(Parts {
        sessions,
        workspaces,
        agents,
        forwarder,
        rates: Rates::new(quotas.requests_per_second),
        downloads: Places::new(DOWNLOADS, Some(DOWNLOADS_EACH)),
        keys: None,
        store,
        proxy,
        executor,
        credentials,
        metrics,
        settings: settings(config, &pool),
        persistence: config.persistence.clone(),
        flavors: config.state.flavors(),
        images: config.state.images(),
        cors_origins: config.cors_origins.clone(),
    })
}

/// As they are told.
fn settings(config: &Config, pool: &std::path::Path) -> Settings {
    Settings {
        proxy_base_url: config.proxy_base_url.to_string(),
        proxy_addr: config.proxy_addr,
        api_addr: config.api_addr,
        gateway_addr: config.gateway_addr,
        state_dir: config.state.path().display().to_string(),
        pool_dir: pool.display().to_string(),
    }
}

fn forwarder(
    config: &Config,
    live: &Live,
    (tasks, stop): &(TaskTracker, CancellationToken),
) -> Result<Forwarder, ServeError> {
    Ok(Forwarder::new(ForwarderParts {
        live: live.clone(),
        dialler: config.gateway_dialler.clone(),
        tls: Arc::new(phantom::client_tls()?).into(),
        tasks: tasks.clone(),
        stop: stop.clone(),
    }))
}

/// Puts the authorities for clones where jails can be given them.
fn authorities(config: &Config) -> Result<Option<std::path::PathBuf>, ServeError> {
    let Some(path) = &config.git_authorities else { return Ok(None) };
    let fail = |source| ServeError::Authorities { path: path.clone(), source };
    let directory = config.state.path().join("authorities");
    let text = std::fs::read(path).map_err(fail)?;
    std::fs::create_dir_all(&directory).map_err(fail)?;
    std::fs::write(directory.join("ca.pem"), text).map_err(fail)?;
    Ok(Some(directory))
}

/// Rows of a server that was killed: what they tell of cannot be running any more.
async fn close_abandoned(store: &Store) -> Result<(), StoreError> {
    let closed = store
        .close_abandoned_jails(Timestamp::now(), "the server was killed while this ran")
        .await?;
    if closed > 0 {
        tracing::warn!(closed, "closed rows of jails that a former server left running");
    }
    Ok(())
}

async fn seed(credentials: &Credentials, seeds: &[(ServiceId, Secret)]) -> Result<(), ServeError> {
    for (service, secret) in seeds {
        let put = credentials.put(TenantId::dev(), service.clone(), secret).await;
        put.map_err(|error| ServeError::Seed(format!("{service}: {error}")))?;
    }
    Ok(())
}

async fn listen(address: SocketAddr, what: &'static str) -> Result<TcpListener, ServeError> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|source| ServeError::Listen { address, what, source })
}

async fn reap(sessions: Sessions, stop: CancellationToken) {
    let mut ticks = interval(REAP);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        if let Err(error) = sessions.reap().await {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "expired sessions not removed"
            );
        }
    }
}
