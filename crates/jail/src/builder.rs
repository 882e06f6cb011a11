//! Saying what a jail shall be, with sensible answers for what is not said.

use std::path::PathBuf;
use std::time::Duration;

use launch::message::{
    Access, Command, Enforcement, Layers, Limits, Network, Profile, Tree, WORKSPACE,
};

use crate::engine::{Engine, SpawnError, Start, Stdin, default_host_id};
use crate::jail::{Jail, Running};

const MIB: u64 = 1 << 20;

/// Variables of a command that was given none.
const ENVIRONMENT: [(&str, &str); 3] =
    [("PATH", "/usr/local/bin:/usr/bin:/bin"), ("HOME", "/home/agent"), ("LANG", "C.UTF-8")];

/// What kind of work a jail is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preset {
    /// A compiler or test suite: no network, a writable workspace, room for many processes.
    Build,
    /// A package manager: less memory than `Build`, a large `/tmp`. Give it a network to install from.
    Install,
    /// A coding agent: memory for a runtime and its tools, a writable workspace.
    Agent,
    /// A server under development: loopback, so that it can be connected to from outside.
    Dev,
}

/// Says what a jail shall be. Made by [`Jail::builder`].
#[derive(Debug, Clone)]
#[must_use]
pub struct Builder {
    start: Start,
}

impl Jail {
    /// A jail for one command, which ends with it. Where nothing else is said: no network, a fresh
    /// read-only workspace, a fresh writable `/output`, 512 MiB, one CPU, 64 processes.
    pub fn builder(program: impl Into<String>) -> Builder {
        let mut builder = Self::idle();
        builder.start.command = Some(Command {
            program: program.into(),
            arguments: Vec::new(),
            environment: ENVIRONMENT.map(|(k, v)| (k.to_owned(), v.to_owned())).to_vec(),
            directory: WORKSPACE.to_owned(),
        });
        builder
    }

    /// A jail without a first command: it waits for [`Jail::start`], and ends when it is dropped.
    pub fn idle() -> Builder {
        Builder {
            start: Start {
                command: None,
                host_id: default_host_id(),
                stdin: Stdin::Empty,
                workspace: Tree::Fresh { bytes: 1 << 30, access: Access::ReadOnly },
                output: Tree::Fresh { bytes: 1 << 30, access: Access::ReadWrite },
                layers: None,
                image: None,
                code: None,
                flavors: Vec::new(),
                network: Network::default(),
                profile: Profile::Standard,
                limits: Limits {
                    memory_bytes: 512 * MIB,
                    cpu_percent: 100,
                    pids: 64,
                    open_files: 4096,
                    tmp_bytes: 100 * MIB,
                    cpu_weight: None,
                    io_bytes_per_second: None,
                },
                cpu_time: None,
                enforcement: Enforcement::Required,
            },
        }
    }
}

impl Builder {
    /// Sets limits and network as usual for a kind of work. What is said later counts.
    pub fn preset(mut self, preset: Preset) -> Self {
        let (memory, cpu_percent, pids, tmp) = match preset {
            Preset::Build => (2048, 200, 256, 512),
            Preset::Install => (1024, 100, 128, 512),
            Preset::Agent => (2048, 200, 256, 256),
            Preset::Dev => (1024, 100, 128, 256),
        };
        self.start.limits = Limits {
            memory_bytes: memory * MIB,
            cpu_percent,
            pids,
            tmp_bytes: tmp * MIB,
            ..self.start.limits
        };
        let (Tree::Fresh { access, .. } | Tree::Host { access, .. } | Tree::Layered { access }) =
            &mut self.start.workspace;
        *access = Access::ReadWrite;
        if preset == Preset::Dev {
            self.start.network.loopback = true;
        }
        self
    }

    /// One more argument.
    pub fn arg(self, argument: impl Into<String>) -> Self {
        self.args([argument])
    }

    /// More arguments.
    pub fn args(mut self, arguments: impl IntoIterator<Item = impl Into<String>>) -> Self {
        if let Some(command) = &mut self.start.command {
            command.arguments.extend(arguments.into_iter().map(Into::into));
        }
        self
    }

    /// Sets a variable. The last word on a name counts.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        if let Some(command) = &mut self.start.command {
            let name = name.into();
            command.environment.retain(|(known, _)| *known != name);
            command.environment.push((name, value.into()));
        }
        self
    }

    /// What the command reads.
    pub fn stdin(mut self, stdin: Stdin) -> Self {
        self.start.stdin = stdin;
        self
    }

    /// What stands at `/workspace`.
    pub fn workspace(mut self, tree: Tree) -> Self {
        self.start.workspace = tree;
        self
    }

    /// A directory of the host at `/workspace`.
    pub fn workspace_directory(self, path: impl Into<PathBuf>, access: Access) -> Self {
        self.workspace(Tree::Host { path: path.into(), access })
    }

    /// What stands at `/output`.
    pub fn output(mut self, tree: Tree) -> Self {
        self.start.output = tree;
        self
    }

    /// An overlay, whose `workspace` and `output` stand at `/workspace` and `/output`, writable.
    pub fn layers(mut self, layers: Layers) -> Self {
        self.start.workspace = Tree::Layered { access: Access::ReadWrite };
        self.start.output = Tree::Layered { access: Access::ReadWrite };
        self.start.layers = Some(layers);
        self
    }

    /// A root file system, read-only, in place of the machine's system directories.
    pub fn image(mut self, root: impl Into<PathBuf>) -> Self {
        self.start.image = Some(root.into());
        self
    }

    /// A file in a fresh workspace.
    pub fn code(mut self, name: impl Into<String>, text: impl Into<String>) -> Self {
        self.start.code = Some((name.into(), text.into()));
        self
    }

    /// A directory of the host, read-only at `/opt/flavors/<name>`.
    pub fn flavor(mut self, name: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        self.start.flavors.push((name.into(), path.into()));
        self
    }

    /// What there is of a network; by default nothing.
    pub fn network(mut self, network: Network) -> Self {
        self.start.network = network;
        self
    }

    /// Which system calls are allowed.
    pub fn profile(mut self, profile: Profile) -> Self {
        self.start.profile = profile;
        self
    }

    /// Memory of everything in the jail together, fresh trees included.
    pub fn memory_bytes(mut self, bytes: u64) -> Self {
        self.start.limits.memory_bytes = bytes;
        self
    }

    /// Of one CPU: 200 is two.
    pub fn cpu_percent(mut self, percent: u32) -> Self {
        self.start.limits.cpu_percent = percent;
        self
    }

    /// Processes and threads.
    pub fn pids(mut self, number: u32) -> Self {
        self.start.limits.pids = number;
        self
    }

    /// All limits at once.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.start.limits = limits;
        self
    }

    /// CPU time of the whole jail.
    pub fn cpu_time(mut self, limit: Option<Duration>) -> Self {
        self.start.cpu_time = limit;
        self
    }

    /// Host user and group, when the engine is root.
    pub fn host_id(mut self, id: u32) -> Self {
        self.start.host_id = id;
        self
    }

    /// Start also if a protection cannot be had here; [`Running::enforced`] tells what could.
    pub fn best_effort(mut self) -> Self {
        self.start.enforcement = Enforcement::BestEffort;
        self
    }

    /// What [`Engine::spawn`] takes.
    pub fn build(self) -> Start {
        self.start
    }

    /// Starts it.
    pub async fn spawn(self, engine: &Engine) -> Result<Running, SpawnError> {
        engine.spawn(self.start).await
    }
}
