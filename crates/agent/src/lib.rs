//! The sandbox agent: what is in one sandbox (files, processes, terminals, coding agents), over HTTP.
//!
//! It needs no privileges and knows nothing of tenants, jails or keys: it runs inside a sandbox as whoever
//! owns it. What it starts ends with it.

mod acp;
mod agents;
mod app;
mod blocking;
mod config;
mod desktop;
mod edge;
mod events;
mod files;
mod health;
mod openapi;
mod patience;
mod problem;
mod processes;
mod sandbox;
mod serve;
mod settings;
mod token;
mod ui;
mod wire;

pub use acp::run_mock;
pub use agents::{
    Agents, Credential, Credentials, InstallError, Installed, Progress, Versions, find_credentials,
    ids as agent_ids,
};
pub use config::{AgentLimits, Config, Cors, Environment};
pub use files::sweep as sweep_partial_files;
pub use openapi::document as openapi_document;
pub use processes::descendants;
pub use serve::{ServeError, serve};
pub use token::Token;
