//! Coding agents: which there are, where they are, how they are started and installed.
//!
//! Everything that differs from one to the next is data, in `agents/registry.json`; what is installed of it,
//! to the last dependency, is in `agents/locks/`.

mod credentials;
mod install;
mod launch;
mod npm;
mod registry;
pub(crate) mod routes;
mod wire;

use std::path::PathBuf;
use std::sync::Arc;

pub use credentials::{Credential, Credentials, find as find_credentials};
pub use install::{InstallError, Installed, Progress, Versions};
pub(crate) use launch::Launch;
pub use registry::ids;
pub(crate) use registry::skills_directory;
use tokio_util::task::TaskTracker;

use crate::config::Environment;
use crate::processes::Spawner;
use install::Jobs;

/// The agents. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Agents {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Native programs; launchers and packages below it.
    bin: PathBuf,
    home: PathBuf,
    environment: Arc<Environment>,
    spawner: Spawner,
    /// How the built-in agent is started.
    mock: (PathBuf, Vec<String>),
    preinstalled_only: bool,
    npm: Option<String>,
    /// Where `bin` is seen by those who run what is in it, if that is elsewhere. What is installed for others is put on
    /// their search path under its own name.
    seen: Option<PathBuf>,
    jobs: Jobs,
    tasks: TaskTracker,
}

/// What agents are made of.
#[derive(Debug)]
pub(crate) struct Needs {
    pub(crate) data: PathBuf,
    pub(crate) home: PathBuf,
    pub(crate) environment: Arc<Environment>,
    pub(crate) spawner: Spawner,
    pub(crate) mock: (PathBuf, Vec<String>),
    pub(crate) preinstalled_only: bool,
    pub(crate) npm: Option<String>,
    pub(crate) seen: Option<PathBuf>,
}

impl Agents {
    pub(crate) fn new(needs: Needs) -> Self {
        let inner = Inner {
            bin: needs.data.join("bin"),
            home: needs.home,
            environment: needs.environment,
            spawner: needs.spawner,
            mock: needs.mock,
            preinstalled_only: needs.preinstalled_only,
            npm: needs.npm,
            seen: needs.seen,
            jobs: Jobs::default(),
            tasks: TaskTracker::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Agents for a program that only installs them. `seen`: where `<data>/bin` will be for those who run them, if not
    /// there.
    ///
    /// # Errors
    ///
    /// If no program can be started here.
    pub fn alone(
        data: PathBuf,
        home: PathBuf,
        environment: Environment,
        npm: Option<String>,
        seen: Option<PathBuf>,
    ) -> std::io::Result<Self> {
        Ok(Self::new(Needs {
            data,
            home,
            environment: Arc::new(environment),
            spawner: Spawner::start(false)?,
            mock: (PathBuf::new(), Vec::new()),
            preinstalled_only: false,
            npm,
            seen,
        }))
    }
}

/// Whether there is an agent of this name.
pub(crate) fn is_known(agent: &str) -> bool {
    registry::find(agent).is_some()
}
