//! Servers for tools and skills, as configured for a directory, and how they reach an agent.
//!
//! Kept in `<directory>/.sandbox-agent/config/mcp.json` and `skills.json`: objects of names. What is in them
//! is handed to an agent with each session that is begun or loaded in that directory; what is configured for
//! the home goes to all.

mod file;
mod mcp;
pub(crate) mod routes;
mod skills;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};
use tokio::sync::Mutex;

use crate::config::Environment;
use crate::files::Root;
use crate::problem::Problem;
use crate::processes::Spawner;

/// The name of what is configured without one.
const DEFAULT: &str = "default";

/// The settings. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    root: Root,
    home: PathBuf,
    /// Where repositories with skills are kept.
    cache: PathBuf,
    spawner: Spawner,
    /// Held while a file is changed: two who change it at once lose nothing.
    changing: Arc<Mutex<()>>,
}

/// Which of the two files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    Mcp,
    Skills,
}

impl What {
    fn file(self) -> &'static str {
        match self {
            Self::Mcp => "mcp.json",
            Self::Skills => "skills.json",
        }
    }

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Mcp => "mcp",
            Self::Skills => "skills",
        }
    }

    fn checked(self, value: Value) -> Result<Value, Problem> {
        match self {
            Self::Mcp => mcp::checked(value),
            Self::Skills => skills::checked(value),
        }
    }
}

impl Settings {
    pub(crate) fn new(root: Root, cache: PathBuf, spawner: Spawner) -> Self {
        Self { home: root.home().to_owned(), root, cache, spawner, changing: Arc::default() }
    }

    fn directory(&self, asked: Option<&str>) -> PathBuf {
        // An absolute path replaces the home.
        self.home.join(asked.unwrap_or_default())
    }

    async fn all(&self, what: What, directory: &Path) -> Result<Map<String, Value>, Problem> {
        file::read(&self.root, directory, what.file()).await
    }

    async fn change(
        &self,
        what: What,
        directory: &Path,
        change: impl FnOnce(&mut Map<String, Value>),
    ) -> Result<(), Problem> {
        let _changing = self.changing.lock().await;
        let mut all = self.all(what, directory).await?;
        change(&mut all);
        file::write(&self.root, directory, what.file(), all).await
    }

    /// Servers for tools as they are kept: an object of names, or `{servers}` with one, or with a list.
    pub(crate) fn checked_mcp(body: Value) -> Result<Value, Problem> {
        if body.is_object() {
            Ok(body)
        } else {
            Err(Problem::invalid("the body must be a JSON object"))
        }
    }

    /// Skills as they are kept.
    pub(crate) fn checked_skills(body: Value) -> Result<Value, Problem> {
        skills::checked(body)
    }

    /// What an agent in a directory is given of servers for tools, in ACP's shape.
    /// A session's own come first.
    pub(crate) async fn mcp_servers(
        &self,
        own: Option<Value>,
        cwd: &Path,
        environment: &Environment,
    ) -> Vec<Value> {
        let mut servers = Vec::new();
        if let Some(own) = own {
            let nested = own.get("servers").or(own.get("mcpServers")).is_some();
            // As what is configured without a name is read.
            let whole = Map::from_iter([(DEFAULT.to_owned(), own.clone())]);
            let all = if nested { whole } else { own.as_object().cloned().unwrap_or_default() };
            mcp::for_an_agent(&all, environment, &mut servers);
        }
        for directory in self.places(cwd) {
            match self.all(What::Mcp, &directory).await {
                Ok(all) => mcp::for_an_agent(&all, environment, &mut servers),
                Err(problem) => {
                    tracing::warn!(error = %problem, "servers for tools cannot be read");
                }
            }
        }
        servers
    }

    /// Puts the skills of a directory where an agent looks for them.
    pub(crate) async fn place_skills(&self, own: Option<Value>, cwd: &Path, agent: &str) {
        let own = own.map(|own| (cwd.to_owned(), Ok(Map::from_iter([(DEFAULT.to_owned(), own)]))));
        let mut configured: Vec<_> = own.into_iter().collect();
        for directory in self.places(cwd) {
            let all = self.all(What::Skills, &directory).await;
            configured.push((directory, all));
        }
        for (directory, all) in configured {
            let placed = match all {
                Ok(all) if all.is_empty() => Ok(()),
                Ok(all) => {
                    skills::place(&all, &directory, cwd, agent, (&self.cache, &self.spawner)).await
                }
                Err(problem) => Err(problem.to_string()),
            };
            if let Err(error) = placed {
                tracing::warn!(error, "skills cannot be given to {agent}");
            }
        }
    }

    /// The directory's own come first: a name that is there twice means that one.
    fn places(&self, cwd: &Path) -> Vec<PathBuf> {
        if cwd == self.home {
            vec![cwd.to_owned()]
        } else {
            vec![cwd.to_owned(), self.home.clone()]
        }
    }
}
