//! The control plane: tenants, credentials, sessions, runs, the ledger, the audit; and the phantom
//! proxy beside it.
//!
//! A resource is a folder: `routes.rs` parses, calls and shapes; `service.rs` holds the rules and
//! knows no HTTP; `wire.rs` is what goes over the wire. Run, exec and stream are the same thing
//! underneath, and [`exec`] owns it.

mod agents;
mod app;
mod audit;
mod backup;
mod caller;
mod config;
mod credentials;
mod edge;
mod exec;
mod gateway;
mod git;
mod identity;
mod jail_network;
mod jails;
mod keys;
mod layers;
mod metrics;
pub mod network;
mod openapi;
mod public;
mod rates;
mod runs;
mod serve;
mod sessions;
mod snapshots;
mod state;
mod workspaces;

pub use config::{
    BaseUrl, BaseUrlError, Config, ExecConfig, Persistence, Quotas, SnapshotRetention,
};
pub use exec::{NetworkUse, RefusedUse, flavors, images};
pub use keys::{ApiKeys, KeyError};
pub use openapi::document as openapi_document;
pub use serve::{ServeError, serve};
pub use state::{
    FirstStart, IN_THE_MAKING, Lock, PUT_AWAY, StateDir, StateError, remove_beginning,
};
