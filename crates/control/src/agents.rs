//! Sandbox agents that live in workspaces: `/v1/workspaces/{id}/agent`.
//!
//! ```text
//!            POST                 idle                     a request
//!   nothing ──────▶ running ─────────────▶ paused ─────────────────────▶ running
//!                     │  ▲                 (frozen, and a snapshot taken)
//!      it died, or    │  │ a request: the conversation goes on
//!      the server did ▼  │
//!                    ended          DELETE: its row, its session and its jail go
//! ```
//!
//! The agent's home is a part of the workspace, so sessions and conversations travel with snapshots and forks.

mod access;
mod body;
mod door;
mod error;
mod forward;
mod life;
mod pausing;
mod program;
mod routes;
mod service;
mod states;
mod wire;

pub(crate) use access::presented;
pub(crate) use forward::{__path_forward, BELOW, TOP, forward, forward_top, is_forwarded};
pub(crate) use program::Program;
pub(crate) use routes::{
    __path_end, __path_get, __path_patch, __path_start, begin, end, get, patch, start,
};
pub(crate) use service::{Agents, AgentsParts};
pub(crate) use wire::{AgentStarted, StartAgent};
