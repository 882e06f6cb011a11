//! Sessions: phantom tokens for some services, and the environment that carries them.

mod routes;
mod service;
mod wire;

pub(crate) use routes::{
    __path_close, __path_create, __path_exec, __path_get, __path_list, __path_run, close, create,
    exec, get, list, run,
};
pub(crate) use service::{Minted, NewSession, SessionError, Sessions};
