//! A spec in, an isolated process out.
//!
//! [`Engine`] owns the launcher and asks it for jails; a [`Jail`] is one that runs. No process in a
//! jail outlives its [`Jail`] value, and no jail outlives the engine, however the program ends.
//! Nothing here knows who asks, over what, or where it is written down.

mod builder;
mod conversation;
mod engine;
mod instance;
mod jail;
mod link;
mod pipes;
mod process;
mod program;

pub use builder::{Builder, Preset};
pub use conversation::OrderError;
pub use engine::{Config, DEFAULT_HOST_ID, Engine, SpawnError, Start, StartError, Stdin};
pub use jail::{Jail, Outcome, Running};
pub use launch::cgroup::Statistics;
pub use launch::fault::STEPS;
pub use launch::message::{
    Access, Command, Enforcement, Exit, Fault, Limits, Listener, Local, Network, Offers, Pool,
    Profile, TerminalSize, Transport, Tree, WORKSPACE,
};
pub use launch::mutation::Protection;
pub use launch::{Role, run as run_launcher};
pub use pipes::Pipes;
pub use process::{Process, Stdio, Streams};
