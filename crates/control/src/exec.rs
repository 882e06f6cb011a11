//! One command in one jail: the thing underneath run, exec and stream.
//!
//! ```text
//!   Job ─▶ admitted ─▶ planned ─▶ jail ∥ ledger row ─▶ owner task ─▶ result, row closed, jail gone
//!            429          400        500
//! ```
//!
//! From the moment there is a jail, an owner task has it. The caller only listens: when the caller
//! goes away the owner kills the jail and closes its row all the same.

mod ask;
mod birth;
mod capture;
mod error;
pub mod flavors;
mod guest;
mod held;
mod host_ids;
pub mod images;
mod job;
mod live;
mod meter;
mod options;
mod owner;
mod places;
mod result;
mod service;

pub(crate) use ask::{AskError, Asker, Then};
pub(crate) use error::ExecError;
pub(crate) use guest::{Guest, Resident};
pub(crate) use held::Held;
pub(crate) use job::{Code, Ground, Job, Program, SessionAccess};
pub(crate) use live::Live;
pub(crate) use options::{ExecOptions, NetworkSpec, SeccompSpec, Settings, policy};
pub(crate) use owner::{Cut, Event, Input};
pub(crate) use places::{Place, Places};
pub(crate) use result::{ExecResult, ResourceStats};
pub use result::{NetworkUse, RefusedUse};
pub(crate) use service::{Begun, Executor, ExecutorParts};
