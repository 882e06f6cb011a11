//! Agent sessions: ACP over HTTP.
//!
//! ```text
//!   POST ──▶ server ──▶ agent process ──▶ its lines ──▶ journal ──▶ feed ──▶ GET (events)
//!              ▲                             │
//!              └────── the answer ◀──────────┘
//! ```
//!
//! A *server* is what a client names in the path: a stream of numbered events, and one agent process (or,
//! for the Python client's dialect, one for each agent that is asked for). A line of an agent is in the
//! journal before anybody hears of it, so what a client has seen is still there after a crash. Envelopes
//! pass through as they are; only ids are ours on the way to the agent, so that two clients may use the same.

mod dialect;
mod envelope;
mod failure;
mod feed;
mod journal;
mod lines;
mod mock;
mod process;
mod registry;
pub(crate) mod rest;
pub(crate) mod routes;
mod seat;
mod server;
mod sessions;
mod wire;

pub use mock::run as run_mock;
pub(crate) use registry::{Needs, Servers};
pub(crate) use rest::routes as session_routes;
