//! API keys: those given at start, and those made while the server runs.

mod configured;
mod routes;
mod service;

pub use configured::{ApiKeys, KeyError};
pub(crate) use routes::{__path_create, __path_list, __path_revoke, create, list, revoke};
pub(crate) use service::Keys;
