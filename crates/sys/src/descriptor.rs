//! Descriptors that a process was born with.

use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::{FdFlags, fcntl_setfd};

/// Takes the descriptor that our parent left at `number`, once. `None` if there is none, if it was
/// taken before, or if `number` is one of the three standard streams.
pub fn inherited(number: RawFd) -> Option<OwnedFd> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if number < 3 || TAKEN.swap(true, Ordering::Relaxed) {
        return None;
    }
    // SAFETY: F_GETFD only tells whether the number names an open descriptor.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } == -1 {
        return None;
    }
    // SAFETY: the number is open (just asked), and nothing in this process owns it: it is not a
    // standard stream, it was put there before `main`, and the flag above gives it out only once.
    let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
    fcntl_setfd(&descriptor, FdFlags::CLOEXEC).ok()?;
    Some(descriptor)
}
