//! `setsid(2)` and `TIOCSCTTY`, in a child before it executes

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// Makes what the command starts the leader of a session of its own, with its standard input as the
/// controlling terminal. If that is no terminal, the start fails.
pub fn lead_a_session(command: &mut Command) {
    let prepare = || {
        // SAFETY: `setsid` takes nothing and touches no memory.
        if unsafe { libc::setsid() } < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `TIOCSCTTY` takes a number, and descriptor 0 is the child's own by now.
        if unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    };
    // SAFETY: between fork and exec only calls that are safe in signal handlers are allowed: the closure
    // makes two system calls, and an error of a number, which allocates nothing.
    unsafe { command.pre_exec(prepare) };
}

/// Makes what the command starts the leader of a session of its own, without a terminal: it does not hear
/// when that is closed.
pub fn leave_the_terminal(command: &mut Command) {
    let prepare = || {
        // SAFETY: `setsid` takes nothing and touches no memory.
        if unsafe { libc::setsid() } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    };
    // SAFETY: between fork and exec only calls that are safe in signal handlers are allowed: the closure
    // makes one system call, and an error of a number, which allocates nothing.
    unsafe { command.pre_exec(prepare) };
}
