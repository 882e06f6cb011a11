//! A spec in, an isolated process out.
//!
//! [`Engine`] owns the launcher and asks it for jails; a [`Jail`] is one that runs. No process in a
//! jail outlives its [`Jail`] value, and no jail outlives the engine, however the program ends.
//! Nothing here knows who asks, over what, or where it is written down.

mod engine;
mod instance;
mod jail;
mod link;
mod program;

pub use engine::{Config, Engine, SpawnError, Start, StartError, Stdin};
pub use jail::{Jail, Outcome, Running};
pub use launch::cgroup::Statistics;
pub use launch::message::{
    Access, Command, Enforcement, Exit, Limits, Listener, Local, Network, Offers, Profile,
    Transport, Tree,
};
pub use launch::{Role, run as run_launcher};
