//! The clone-jail: git runs in a jail that reaches the repository's host and nothing else.
//!
//! No git of the host ever sees a request, nor what a repository brings: the jail writes into a tree that
//! only other jails will look into. A private repository is reached through the phantom proxy, so that the
//! jail holds no real key here, either.

mod clone;
mod spec;

pub(crate) use clone::{CloneError, Cloner, ClonerParts, Destination};
pub(crate) use spec::{GitSpec, Repository, provenance};
