//! Real keys: put in, listed by fingerprint, taken out. Never given back.

mod routes;
mod service;
mod wire;

pub(crate) use routes::{__path_list, __path_put, __path_remove, list, put, remove};
pub(crate) use service::Credentials;
