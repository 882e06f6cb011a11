//! The launcher, each jail's init, and the messages they speak.
//!
//! ```text
//!   server ── Request ──▶ launcher ── Assignment ──▶ init (pid 1 of a jail) ── fork+exec ──▶ command
//!     ▲                      │ pidfd                     │
//!     └──────── Reply ───────┘                           │
//!     └───────────────────── Report ─────────────────────┘
//! ```
//!
//! The launcher is a process of its own, started with `exec`, and has a single thread: what it does
//! between `clone3` and `exec` may be ordinary safe Rust, and its page tables are small to copy.
//! Nothing here links an async runtime, JSON or a logger, so nothing here can start a thread.
//!
//! Nothing untrusted runs before the barrier: cgroup joined, in its own root, capabilities gone,
//! Landlock and seccomp in force. A step that fails ends the jail and says which step it was.

mod birth;
pub mod cgroup;
mod execution;
pub mod fault;
#[cfg(fuzzing)]
pub mod fuzzing;
mod init;
mod launcher;
pub mod message;
mod network;
mod pool;
pub mod seccomp;
mod shape;
mod template;
mod uid_map;
pub mod wire;

pub use execution::Execution;
pub use launcher::{Role, run};
pub use uid_map::UidMap;

/// Descriptors that one message may carry.
pub const MAX_DESCRIPTORS: usize = 120;
