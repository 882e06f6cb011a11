//! `signalfd(2)`, `sigprocmask(2)`, `sigaction(2)`

use std::mem::MaybeUninit;
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::{io, ptr};

/// A descriptor that becomes readable when a child has changed its state. `SIGCHLD` is blocked from
/// then on; [`restore_signals`] undoes that in a child that is about to become another program.
pub fn child_signals() -> io::Result<OwnedFd> {
    let set = signal_set(libc::SIGCHLD);
    // SAFETY: `set` is initialised, and no old mask is asked for.
    if unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `set` is initialised; -1 asks for a new descriptor.
    let fd = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    if fd == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor, and nothing else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Gives the next program the signals a program expects: none blocked, none ignored. (The Rust
/// runtime ignores `SIGPIPE`, and an ignored signal stays ignored across `exec`.)
pub fn restore_signals() -> io::Result<()> {
    let mut empty = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `sigemptyset` initialises what it is given.
    unsafe { libc::sigemptyset(empty.as_mut_ptr()) };
    // SAFETY: `empty` was initialised by the line above; no old mask is asked for.
    if unsafe { libc::sigprocmask(libc::SIG_SETMASK, empty.as_ptr(), ptr::null_mut()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `SIG_DFL` is a disposition, not a function: nothing of ours will be called.
    if unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) } == libc::SIG_ERR {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn signal_set(signal: libc::c_int) -> libc::sigset_t {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `sigemptyset` initialises what it is given.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: `set` is initialised, and `signal` is one of libc's own numbers.
    unsafe { libc::sigaddset(set.as_mut_ptr(), signal) };
    // SAFETY: initialised by `sigemptyset`.
    unsafe { set.assume_init() }
}
