//! `close_range(2)`

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

/// Marks every descriptor from `first` on as closed by the next `exec`.
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: with CLOSE_RANGE_CLOEXEC nothing is closed; a flag is set on descriptors.
    let done =
        unsafe { libc::close_range(first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC.cast_signed()) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Closes every descriptor from 3 on but those in `kept`.
///
/// For a process that has just been born as a copy: its parent's descriptors are in its table, and
/// the values that own them are in memory that this process will never use again.
pub fn close_all_but(kept: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut numbers: Vec<u32> = kept.iter().map(|fd| fd.as_raw_fd().cast_unsigned()).collect();
    numbers.sort_unstable();
    let mut first = 3;
    for number in numbers {
        if number > first {
            close(first, number - 1)?;
        }
        first = first.max(number + 1);
    }
    close(first, u32::MAX)
}

fn close(first: u32, last: u32) -> io::Result<()> {
    // SAFETY: closing a descriptor that some `OwnedFd` names is what I/O safety forbids, because
    // the number may be given out again. The caller is the only thread of a fresh copy (it holds
    // borrows of all it means to keep), and leaves the copied owners behind without running their
    // destructors: it ends in `exec` or `_exit`.
    let done = unsafe { libc::close_range(first, last, 0) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
