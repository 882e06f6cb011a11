//! `clone3(2)`

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

/// Which namespaces a child is born into. Combine with [`Namespaces::and`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Namespaces(u64);

impl Namespaces {
    /// Those of the parent.
    pub const NONE: Self = Self(0);
    pub const USER: Self = Self(libc::CLONE_NEWUSER as u64);
    pub const MOUNT: Self = Self(libc::CLONE_NEWNS as u64);
    pub const PID: Self = Self(libc::CLONE_NEWPID as u64);
    pub const NET: Self = Self(libc::CLONE_NEWNET as u64);
    pub const IPC: Self = Self(libc::CLONE_NEWIPC as u64);
    pub const CGROUP: Self = Self(libc::CLONE_NEWCGROUP as u64);
    pub const UTS: Self = Self(libc::CLONE_NEWUTS as u64);

    /// Both these and those.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(crate) const fn bits(self) -> u64 {
        self.0
    }
}

/// Where a child is born.
#[derive(Debug, Clone, Copy)]
pub struct Birth<'fd> {
    pub namespaces: Namespaces,
    /// A cgroup v2 directory, so that limits hold from the child's first instruction.
    pub cgroup: Option<BorrowedFd<'fd>>,
}

/// Which of the two processes this is.
#[derive(Debug)]
pub enum Side {
    Child,
    Parent { pid: u32, child: OwnedFd },
}

/// Why no child was made.
#[derive(Debug)]
pub enum CloneError {
    /// The caller has more than one thread: a bug in the caller.
    Threads,
    /// The kernel's answer.
    Refused(io::Error),
}

impl From<CloneError> for io::Error {
    fn from(error: CloneError) -> Self {
        match error {
            CloneError::Threads => Self::other("clone3 called with other threads running"),
            CloneError::Refused(error) => error,
        }
    }
}

/// Copies the calling process into new namespaces and a cgroup, and hands the parent a pidfd.
///
/// # Errors
///
/// [`CloneError::Threads`] in a process with more than one thread: a bug in the caller.
pub fn clone3(birth: &Birth<'_>) -> Result<Side, CloneError> {
    if !leads_alone() {
        return Err(CloneError::Threads);
    }
    let mut pidfd: RawFd = -1;
    let mut args = CloneArgs {
        flags: birth.namespaces.0 | libc::CLONE_PIDFD as u64,
        pidfd: (&raw mut pidfd) as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    if let Some(cgroup) = birth.cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = u64::from(cgroup.as_raw_fd().cast_unsigned());
    }
    // SAFETY: `args` is a whole, live `clone_args`, and its one pointer names `pidfd`, which
    // outlives the call. No `CLONE_VM` and no stack: the child runs on its own copy of ours.
    // We are the only thread (asked above, and with nobody else running nobody can have
    // started one since), so no lock in that copy waits for a thread that is not there. libc's
    // own record of the thread id is the parent's in the child; nothing on the way to `exec` or
    // `_exit` uses a lock that compares it.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<CloneArgs>()) };
    match u32::try_from(pid) {
        Err(_) => Err(CloneError::Refused(io::Error::last_os_error())),
        Ok(0) => Ok(Side::Child),
        Ok(pid) => {
            // SAFETY: the kernel has just put a new descriptor into `pidfd` (`CLONE_PIDFD`), and
            // nothing else in this process knows its number.
            let child = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Side::Parent { pid, child })
        }
    }
}

/// Whether this process has a single thread, also where there is no `/proc`: `unshare` of the thread
/// group does nothing for a process with one, and is refused to one with more.
fn leads_alone() -> bool {
    // SAFETY: the call takes no pointer, and with this flag alone changes nothing.
    unsafe { libc::unshare(libc::CLONE_THREAD) == 0 }
}

/// The same, also for processes whose filter refuses `unshare`: the kernel adds them to the link count of
/// `task`.
pub(crate) fn is_alone() -> io::Result<bool> {
    Ok(leads_alone() || rustix::fs::stat("/proc/self/task")?.st_nlink == 2 + 1)
}

const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// `struct clone_args` of `linux/sched.h`, as of Linux 5.7.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

const _: () = assert!(size_of::<CloneArgs>() == 88, "CLONE_ARGS_SIZE_VER2");
