//! Kernel calls that rustix lacks, one file a call, safe to use from outside.
//!
//! All `unsafe` of the tree is here: preconditions are types, or checks cheap enough to make the
//! function safe. What rustix has is not repeated here.

mod clone;
mod close_range;
mod descriptor;
mod exec;
mod mount_setattr;
mod seccomp;
mod signal;

pub use clone::{Birth, CloneError, Namespaces, Side, clone3};
pub use close_range::{close_all_but, close_on_exec_from};
pub use descriptor::inherited;
pub use exec::{exec, exit};
pub use mount_setattr::{MountAttributes, Reach, map_owner, restrict_mount};
pub use seccomp::{Instruction, MAX_INSTRUCTIONS, install_filter};
pub use signal::{child_signals, restore_signals};
