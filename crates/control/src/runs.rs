//! Runs: code in a throwaway jail, waited for or streamed.

mod fork;
mod ground;
mod routes;
mod stream;
mod wire;

pub(crate) use fork::{__path_fork, fork};
pub(crate) use routes::{__path_create, __path_stream, check_words, create, job, stream};
pub(crate) use stream::{completed, frames};
pub(crate) use wire::{RunBody, RunRequest};
