//! One command in one jail: the thing underneath run, exec and stream.
//!
//! ```text
//!   Job ─▶ admitted ─▶ planned ─▶ jail ∥ ledger row ─▶ owner task ─▶ result, row closed, jail gone
//!            429          400        500
//! ```
//!
//! From the moment there is a jail, an owner task has it. The caller only listens: when the caller
//! goes away the owner kills the jail and closes its row all the same.

mod capture;
pub mod flavors;
mod host_ids;
mod options;
mod owner;
mod result;
mod service;

pub(crate) use options::{ExecOptions, policy};
pub(crate) use owner::Event;
pub(crate) use result::{ExecResult, ResourceStats};
pub use result::{NetworkUse, RefusedUse};
pub(crate) use service::{
    Code, ExecError, Executor, ExecutorParts, Job, Live, Program, SessionAccess,
};
