//! Processes: each with one owner, a log on disk, and nothing that outlives it.
//!
//! ```text
//!             POST                exit, or a signal            DELETE
//!   (nothing) ────▶ running ─────────────────────────▶ exited ───────▶ (nothing)
//! ```
//!
//! The owner's task is the only one that reads the process's output and reaps it. Output goes to the log
//! first; whoever follows reads it from there, at a pace of its own, so a slow reader costs no memory.

mod config;
mod error;
mod log;
mod logs;
mod owner;
pub(crate) mod routes;
mod run;
mod service;
mod spawn;
mod terminal;
mod tree;
mod wire;

pub(crate) use service::Processes;
pub(crate) use spawn::{
    Ended, Order, SpawnError, Spawned, Spawner, Stdios, nothing, shield_is_free,
};
pub use tree::descendants;
pub(crate) use tree::signal_all;
