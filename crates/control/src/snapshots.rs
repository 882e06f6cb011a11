//! Snapshots: what a workspace was at one moment.

mod entries;
mod retention;
mod routes;
mod wire;

pub(crate) use retention::keep_house;
pub(crate) use routes::{
    __path_delete, __path_diff, __path_get, __path_list, __path_manifest, __path_tar,
    __path_verify, delete, diff, get, list, manifest, tar, verify, view,
};
pub(crate) use wire::SnapshotView;
