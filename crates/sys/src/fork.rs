//! `clone(2)`, as `fork`

use std::io;

use crate::clone::is_alone;

/// Which of the two processes this is.
#[derive(Debug)]
pub enum Forked {
    Child,
    Parent { pid: u32 },
}

/// Copies the calling process, for one that lives under a filter that knows no `clone3`.
///
/// # Errors
///
/// In a process with more than one thread: a bug in the caller.
pub fn fork() -> io::Result<Forked> {
    if !is_alone()? {
        return Err(io::Error::other("fork called with other threads running"));
    }
    // SAFETY: without `CLONE_VM` and a stack the child runs on its own copy of ours. We are the only
    // thread (counted above), so no lock in that copy waits for a thread that is not there.
    let pid = unsafe {
        libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0_usize, 0_usize, 0_usize, 0_usize)
    };
    match u32::try_from(pid) {
        Err(_) => Err(io::Error::last_os_error()),
        Ok(0) => Ok(Forked::Child),
        Ok(pid) => Ok(Forked::Parent { pid }),
    }
}
