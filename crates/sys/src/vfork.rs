//! `clone(2)`, as `vfork`

use std::convert::Infallible;
use std::ffi::{c_int, c_void};
use std::io;
use std::mem::MaybeUninit;

use crate::clone::is_alone;
use crate::exec::exit;

/// Room for the child's stack. A heap block of this size is mapped by itself: only what is touched is
/// memory.
const STACK_BYTES: usize = 256 << 10;

/// What a child of [`vfork`] has for its stack. Kept by the caller: to unmap it takes a while, which nobody
/// should wait for.
#[derive(Debug)]
pub struct Stack(Vec<MaybeUninit<u128>>);

impl Stack {
    /// Maps one.
    pub fn new() -> Self {
        Self(Vec::with_capacity(STACK_BYTES / size_of::<u128>()))
    }
}

impl Default for Stack {
    fn default() -> Self {
        Self::new()
    }
}

/// Starts a process that shares this one's memory, and waits until it has executed a program or ended.
///
/// There is no copy to make, and none to take down when it executes. It has a table of descriptors,
/// credentials and a working directory of its own. What `child` captures by value is lost to this process:
/// lend it. What it allocates stays allocated here.
///
/// # Errors
///
/// In a process with more than one thread: a bug in the caller.
pub fn vfork<F: FnOnce() -> Infallible>(stack: &mut Stack, child: F) -> io::Result<u32> {
    if !is_alone()? {
        return Err(io::Error::other("vfork called with other threads running"));
    }
    let mut child = Some(child);
    // SAFETY: `enter::<F>` gets a pointer to `child`, which outlives the child's use of it: with
    // `CLONE_VFORK` the kernel lets this process go on only when the child has left this memory, by `exec`
    // or by its end. For the same reason the two never run at the same time here, so the child may use the
    // heap and the thread-local storage of this thread, the only one (counted above), as a function that
    // this one called could. The stack grows downwards from the end of a live block, aligned to 16
    // bytes. Signal handlers are shared memory's, too; a child changes none.
    let pid = unsafe {
        libc::clone(
            enter::<F>,
            stack.0.spare_capacity_mut().as_mut_ptr_range().end.cast(),
            libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD,
            (&raw mut child).cast(),
        )
    };
    u32::try_from(pid).map_err(|_| io::Error::last_os_error())
}

/// Where the child begins. A panic ends it: it must not unwind into a stack that is not its own.
extern "C" fn enter<F: FnOnce() -> Infallible>(argument: *mut c_void) -> c_int {
    // SAFETY: `vfork` gives a pointer to its own `Option<F>`, and waits.
    let child = unsafe { &mut *argument.cast::<Option<F>>() }.take();
    match child.map(|child| child()) {
        Some(never) => match never {},
        None => exit(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs in a process of its own: tests have threads.
    #[test]
    fn with_other_threads_it_is_refused() {
        assert!(vfork(&mut Stack::new(), || exit(0)).is_err());
    }
}
