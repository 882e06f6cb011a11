//! `signalfd(2)`, `sigprocmask(2)`, `sigaction(2)`

use std::mem::MaybeUninit;
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::{io, ptr};

/// A descriptor that becomes readable when a child has changed its state. `SIGCHLD` is blocked from
/// then on; [`unblock_signals`] undoes that in a child that is about to become another program.
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

/// `struct sigaction` as the kernel of x86-64 takes it.
#[repr(C)]
struct KernelAction {
    handler: libc::sighandler_t,
    flags: libc::c_ulong,
    restorer: usize,
    mask: u64,
}

const _: () = assert!(size_of::<KernelAction>() == 32);

/// `_NSIG` on Linux.
const LAST_SIGNAL: libc::c_int = 64;

/// Gives the next program an empty signal mask, as programs expect.
pub fn unblock_signals() -> io::Result<()> {
    let mut empty = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `sigemptyset` initialises what it is given.
    unsafe { libc::sigemptyset(empty.as_mut_ptr()) };
    // SAFETY: `empty` was initialised by the line above; no old mask is asked for.
    if unsafe { libc::sigprocmask(libc::SIG_SETMASK, empty.as_ptr(), ptr::null_mut()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Ignores no signal any more but `SIGPIPE`, here and in what is forked later. (Whoever started us may have
/// ignored some, and an ignored signal stays ignored across `exec`.) It takes a call a signal, so it is
/// done once.
pub fn ignore_only_broken_pipes() {
    for signal in (1..=LAST_SIGNAL).filter(|signal| *signal != libc::SIGPIPE) {
        reset(signal);
    }
}

/// Does not ignore `SIGPIPE` any more either, as the Rust runtime does.
pub fn stop_ignoring_broken_pipes() {
    reset(libc::SIGPIPE);
}

fn reset(signal: libc::c_int) {
    let default = KernelAction { handler: libc::SIG_DFL, flags: 0, restorer: 0, mask: 0 };
    // By the system call: libc keeps two signals to itself. It is refused for SIGKILL and SIGSTOP,
    // which cannot be ignored.
    // SAFETY: `default` is a whole `struct sigaction` of the kernel's, alive during the call, with
    // no handler that could be called; the old one is not asked for; the set has 8 bytes.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigaction,
            signal,
            &raw const default,
            ptr::null_mut::<KernelAction>(),
            size_of::<u64>(),
        )
    };
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
