//! Workspaces: a pair of `/workspace` and `/output` that outlives its commands.

mod attach;
mod capture;
mod config;
mod domains;
mod error;
mod labels;
mod live;
mod moments;
mod occupants;
mod routes;
mod service;
mod wire;

pub(crate) use attach::{__path_attach, attach};
pub(crate) use capture::{CaptureError, captured};
pub(crate) use error::WorkspaceError;
pub(crate) use live::Live;
pub(crate) use occupants::NewResident;
pub(crate) use routes::{
    __path_create, __path_delete, __path_exec, __path_exec_stream, __path_fork,
    __path_from_snapshot, __path_get, __path_list, __path_patch, __path_restore, __path_snapshot,
    create, delete, exec, exec_stream, fork, from_snapshot, get, list, patch, restore, snapshot,
};
pub(crate) use service::{Workspaces, WorkspacesParts};
