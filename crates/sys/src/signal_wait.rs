//! `sigprocmask(2)`, `sigwaitinfo(2)`

use std::mem::MaybeUninit;
use std::{io, ptr};

/// Signals that wait for [`Waiting::next`] instead of interrupting this thread.
#[derive(Debug)]
pub struct Waiting {
    set: libc::sigset_t,
}

impl Waiting {
    /// Blocks the signals that end a process politely, and those of its children.
    pub fn for_ends() -> io::Result<Self> {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: `sigemptyset` initialises what it is given.
        unsafe { libc::sigemptyset(set.as_mut_ptr()) };
        for signal in [libc::SIGCHLD, libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT] {
            // SAFETY: `set` is initialised, and `signal` is one of libc's own numbers.
            unsafe { libc::sigaddset(set.as_mut_ptr(), signal) };
        }
        // SAFETY: initialised by `sigemptyset`.
        let set = unsafe { set.assume_init() };
        change(libc::SIG_BLOCK, &set)?;
        Ok(Self { set })
    }

    /// Lets them interrupt again.
    pub fn unblock(self) -> io::Result<()> {
        change(libc::SIG_UNBLOCK, &self.set)
    }

    /// Waits for one; gives its number.
    pub fn next(&self) -> io::Result<i32> {
        loop {
            // SAFETY: the set is initialised; no information is asked for.
            let signal = unsafe { libc::sigwaitinfo(&raw const self.set, ptr::null_mut()) };
            if signal > 0 {
                return Ok(signal);
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }
}

fn change(how: libc::c_int, set: &libc::sigset_t) -> io::Result<()> {
    // SAFETY: `set` is a reference to an initialised set, and no old mask is asked for.
    if unsafe { libc::sigprocmask(how, ptr::from_ref(set), ptr::null_mut()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
