//! Kernel calls that rustix lacks, one file a call, safe to use from outside.
//!
//! All `unsafe` of the tree is here: preconditions are types, or checks cheap enough to make the
//! function safe. What rustix has is not repeated here.

pub mod attempt;
pub mod bpf;
mod clone;
mod close_range;
mod exec;
mod fork;
mod landlock_abi;
mod mount_setattr;
mod seccomp;
mod session;
mod signal;
mod signal_wait;
mod socket_filter;
mod unshare;
mod vfork;

pub use bpf::Instruction;
pub use clone::{Birth, CloneError, Namespaces, Side, clone3};
pub use close_range::{close_all_but, close_on_exec_from};
pub use exec::{exec, exit};
pub use fork::{Forked, fork};
pub use landlock_abi::landlock_abi;
pub use mount_setattr::{MountAttributes, Reach, map_owner, restrict_mount};
pub use seccomp::{MAX_INSTRUCTIONS, install_filter};
pub use session::{lead_a_session, leave_the_terminal};
pub use signal::{
    child_signals, ignore_only_broken_pipes, stop_ignoring_broken_pipes, unblock_signals,
};
pub use signal_wait::Waiting;
pub use socket_filter::attach_filter;
pub use unshare::unshare;
pub use vfork::{Stack, vfork};
