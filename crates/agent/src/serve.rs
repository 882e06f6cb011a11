//! A server's life: made, announced, served, drained.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::acp::{self, Servers};
use crate::agents::{self, Agents};
use crate::app::{App, router};
use crate::config::Config;
use crate::files::{Pending, Root};
use crate::processes::{Processes, Spawner, shield_is_free};
use crate::settings::Settings;

/// Why a server does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("could not listen on {address}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("could not open the root directory {path}")]
    Root { path: PathBuf, source: io::Error },
    #[error("could not prepare {path}")]
    Prepare { path: PathBuf, source: io::Error },
    #[error("could not start")]
    Start(#[source] io::Error),
}

/// Serves until `stop`. `ready` is told the address once requests are taken.
pub async fn serve(
    config: Config,
    stop: CancellationToken,
    ready: impl FnOnce(SocketAddr),
) -> Result<(), ServeError> {
    let address = config.address;
    let listener = TcpListener::bind(address).await;
    let listener = listener.map_err(|source| ServeError::Listen { address, source })?;
    let bound = listener.local_addr().map_err(ServeError::Start)?;
    let (app, spawner) = prepare(config, bound, stop.clone())?;
    ready(bound);
    let (grace, servers, processes) =
        (app.config.grace, app.servers.clone(), app.processes.clone());
    let serving = httpkit::serve(listener, router(app), stop, grace);
    let mut serving = std::pin::pin!(serving);
    tokio::select! {
        () = &mut serving => {}
        () = servers.clone().run() => {}
    }
    tokio::join!(servers.end(), processes.end_all());
    spawner.drain().await;
    Ok(())
}

fn prepare(
    config: Config,
    bound: SocketAddr,
    stop: CancellationToken,
) -> Result<(App, Spawner), ServeError> {
    let root = config.root.clone();
    let scratch = scratch(&config)?;
    let failed = |source| ServeError::Prepare { path: scratch.clone(), source };
    let pending = Pending::open(&scratch).map_err(failed)?;
    let files = Root::open(&root, &config.home, pending)
        .map_err(|source| ServeError::Root { path: root, source })?;
    let spawner = Spawner::start(config.shield || shield_is_free()).map_err(ServeError::Start)?;
    let environment = Arc::new(config.environment.clone());
    let home = files.home().to_owned();
    let agents = Agents::new(agents::Needs {
        data: config.data.clone(),
        home: home.clone(),
        environment: Arc::clone(&environment),
        spawner: spawner.clone(),
        mock: config.mock.clone(),
        preinstalled_only: config.agents.preinstalled_only,
        seen: None,
        npm: config.agents.npm.clone(),
    });
    let settings = Settings::new(files.clone(), config.data.clone(), spawner.clone());
    let by_port = || config.data.join("state").join(bound.port().to_string());
    let state = config.state.clone().unwrap_or_else(by_port);
    let servers = Servers::new(acp::Needs {
        state: state.clone(),
        spawner: spawner.clone(),
        environment: Arc::clone(&environment),
        agents: agents.clone(),
        settings: settings.clone(),
        home: home.clone(),
        limits: config.agents.clone(),
    });
    let processes =
        Processes::new(spawner.clone(), environment, home, scratch, state.join("processes.json"));
    let config = Arc::new(config);
    Ok((App { config, files, processes, agents, servers, settings, stop }, spawner))
}

/// Where logs lie: below the data, or where something can be written if that is read-only.
fn scratch(config: &Config) -> Result<PathBuf, ServeError> {
    let own = format!("sandbox-agent-{}", rustix::process::geteuid().as_raw());
    let places = [
        Some(config.scratch()),
        config.state.as_ref().map(|state| state.join("scratch")),
        Some(std::env::temp_dir().join(&own)),
        Some(PathBuf::from("/dev/shm").join(own)),
    ];
    let mut first = None;
    for path in places.into_iter().flatten() {
        match private_directory(&path).and_then(|()| tempfile::tempfile_in(&path)) {
            Ok(_) => return Ok(path),
            Err(source) => first = first.or(Some(ServeError::Prepare { path, source })),
        }
    }
    Err(first.unwrap_or_else(|| ServeError::Start(io::Error::other("no place to write"))))
}

fn private_directory(path: &std::path::Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}
