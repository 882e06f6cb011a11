//! What a server is told at its start: checked, and needing no second look.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, Method};

use crate::token::Token;

/// A server.
#[derive(Debug)]
pub struct Config {
    pub address: SocketAddr,
    /// Who may ask; `None` lets everybody in.
    pub token: Option<Token>,
    /// Every path that is served lies below it.
    pub root: PathBuf,
    /// Where relative paths begin, and what agents' own files are below.
    pub home: PathBuf,
    /// Installed agents: `<data>/bin`.
    pub data: PathBuf,
    /// Sessions and their events. `None`: beside the data, by port.
    pub state: Option<PathBuf>,
    pub cors: Cors,
    /// Names under which the server may be addressed, beside addresses and `localhost`.
    pub hosts: Vec<String>,
    pub environment: Environment,
    pub agents: AgentLimits,
    /// Processes may not signal or trace this server: an error if the kernel cannot have it so.
    /// Without it, they may not wherever that takes nothing away from them.
    pub shield: bool,
    /// The process that keeps this one, while it is its parent: all that descends from it is ours.
    pub keeper: Option<u32>,
    /// How the built-in agent is started: a program and its arguments.
    pub mock: (PathBuf, Vec<String>),
    /// How long requests in flight may take after a signal to stop.
    pub grace: Duration,
}

impl Config {
    /// What lasts no longer than a server: logs of processes, names of files that are being replaced.
    pub fn scratch(&self) -> PathBuf {
        self.data.join("scratch")
    }
}

/// Web pages of other origins that may call.
#[derive(Debug, Clone, Default)]
pub struct Cors {
    /// `*` stands for all.
    pub origins: Vec<String>,
    pub methods: Vec<Method>,
    pub headers: Vec<HeaderName>,
    pub credentials: bool,
}

impl Cors {
    /// Whether a page of this origin may call.
    pub(crate) fn allows(&self, origin: &HeaderValue) -> bool {
        self.origins.iter().any(|allowed| allowed == "*" || allowed.as_bytes() == origin.as_bytes())
    }
}

/// What processes and agents find in their environment.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// For all: a clean base, and what was declared for the sandbox.
    pub base: BTreeMap<String, String>,
    /// The server's own, of which each agent is given what is its provider's, and nothing else.
    pub server: BTreeMap<String, String>,
}

/// Bounds for coding agents.
#[derive(Debug, Clone)]
pub struct AgentLimits {
    /// Agent processes at once.
    pub most: usize,
    /// An agent that nobody asks and nobody listens to ends after this.
    pub idle: Option<Duration>,
    /// How long a method other than a prompt may take.
    pub request_timeout: Duration,
    /// Agents must be there already: none is installed because somebody asks for it.
    pub preinstalled_only: bool,
    /// npm packages come from here, if it is not npm's own choice.
    pub npm: Option<String>,
}

impl Default for AgentLimits {
    fn default() -> Self {
        Self {
            most: 32,
            idle: Some(Duration::from_secs(30 * 60)),
            request_timeout: Duration::from_secs(120),
            preinstalled_only: false,
            npm: None,
        }
    }
}
