//! The HTTP API, resource by resource.

mod access;
mod credentials;
mod jails;
mod openapi;
mod runs;
mod sessions;
mod stream;
