//! Calls that a jail must refuse, made to see whether it does.

use std::io;

/// One call with arguments that are harmless to the caller: numbers and null pointers.
#[derive(Debug, Clone, Copy)]
pub struct Attempt {
    pub name: &'static str,
    number: libc::c_long,
    arguments: [usize; 5],
}

const fn attempt(name: &'static str, number: libc::c_long, arguments: [usize; 5]) -> Attempt {
    Attempt { name, number, arguments }
}

const NO_FD: usize = usize::MAX;
const HERE: usize = (-100_isize).cast_unsigned(); // AT_FDCWD

/// Other processes' memory and descriptors. Process 1 is the jail's init.
pub const OF_PROCESSES: [Attempt; 6] = [
    attempt("ptrace", libc::SYS_ptrace, [16, 1, 0, 0, 0]), // PTRACE_ATTACH
    attempt("process_vm_readv", libc::SYS_process_vm_readv, [1, 0, 0, 0, 0]),
    attempt("process_vm_writev", libc::SYS_process_vm_writev, [1, 0, 0, 0, 0]),
    attempt("pidfd_getfd", libc::SYS_pidfd_getfd, [NO_FD, 0, 0, 0, 0]),
    attempt("kcmp", libc::SYS_kcmp, [1, 1, 0, 0, 0]),
    attempt("process_madvise", libc::SYS_process_madvise, [NO_FD, 0, 0, 0, 0]),
];

/// New namespaces, and entering others.
pub const OF_NAMESPACES: [Attempt; 10] = [
    attempt("unshare(user)", libc::SYS_unshare, [libc::CLONE_NEWUSER as usize, 0, 0, 0, 0]),
    attempt("unshare(mount)", libc::SYS_unshare, [libc::CLONE_NEWNS as usize, 0, 0, 0, 0]),
    attempt("unshare(net)", libc::SYS_unshare, [libc::CLONE_NEWNET as usize, 0, 0, 0, 0]),
    attempt("unshare(ipc)", libc::SYS_unshare, [libc::CLONE_NEWIPC as usize, 0, 0, 0, 0]),
    attempt("unshare(uts)", libc::SYS_unshare, [libc::CLONE_NEWUTS as usize, 0, 0, 0, 0]),
    attempt("unshare(pid)", libc::SYS_unshare, [libc::CLONE_NEWPID as usize, 0, 0, 0, 0]),
    attempt("unshare(cgroup)", libc::SYS_unshare, [libc::CLONE_NEWCGROUP as usize, 0, 0, 0, 0]),
    attempt("unshare(time)", libc::SYS_unshare, [0x80, 0, 0, 0, 0]),
    attempt("setns", libc::SYS_setns, [NO_FD, 0, 0, 0, 0]),
    attempt("clone3", libc::SYS_clone3, [0, 0, 0, 0, 0]),
];

/// Leaving the root, and files by handle.
pub const OF_ROOTS: [Attempt; 4] = [
    attempt("chroot", libc::SYS_chroot, [0, 0, 0, 0, 0]),
    attempt("pivot_root", libc::SYS_pivot_root, [0, 0, 0, 0, 0]),
    attempt("open_by_handle_at", libc::SYS_open_by_handle_at, [NO_FD, 0, 0, 0, 0]),
    attempt("name_to_handle_at", libc::SYS_name_to_handle_at, [HERE, 0, 0, 0, 0]),
];

/// Mounting, old and new.
pub const OF_MOUNTS: [Attempt; 10] = [
    attempt("mount", libc::SYS_mount, [0, 0, 0, 0, 0]),
    attempt("umount2", libc::SYS_umount2, [0, 0, 0, 0, 0]),
    attempt("open_tree", libc::SYS_open_tree, [NO_FD, 0, 0, 0, 0]),
    attempt("move_mount", libc::SYS_move_mount, [NO_FD, 0, NO_FD, 0, 0]),
    attempt("fsopen", libc::SYS_fsopen, [0, 0, 0, 0, 0]),
    attempt("fsconfig", libc::SYS_fsconfig, [NO_FD, 0, 0, 0, 0]),
    attempt("fsmount", libc::SYS_fsmount, [NO_FD, 0, 0, 0, 0]),
    attempt("fspick", libc::SYS_fspick, [NO_FD, 0, 0, 0, 0]),
    attempt("mount_setattr", libc::SYS_mount_setattr, [NO_FD, 0, 0, 0, 0]),
    attempt("open_tree_attr", 467, [NO_FD, 0, 0, 0, 0]),
];

/// io_uring, whose operations pass by a filter.
pub const OF_IO_URING: [Attempt; 3] = [
    attempt("io_uring_setup", libc::SYS_io_uring_setup, [1, 0, 0, 0, 0]),
    attempt("io_uring_enter", libc::SYS_io_uring_enter, [NO_FD, 0, 0, 0, 0]),
    attempt("io_uring_register", libc::SYS_io_uring_register, [NO_FD, 0, 0, 0, 0]),
];

/// Faults handled by a program (user mode only: what an ordinary user may have).
pub const OF_USERFAULT: [Attempt; 1] =
    [attempt("userfaultfd", libc::SYS_userfaultfd, [1, 0, 0, 0, 0])];

/// BPF, performance counters, keyrings.
pub const OF_KERNEL_SERVICES: [Attempt; 5] = [
    attempt("bpf", libc::SYS_bpf, [0, 0, 0, 0, 0]),
    attempt("perf_event_open", libc::SYS_perf_event_open, [0, 0, 0, NO_FD, 0]),
    attempt("keyctl", libc::SYS_keyctl, [0, (-3_isize).cast_unsigned(), 0, 0, 0]), // the session keyring's id
    attempt("add_key", libc::SYS_add_key, [0, 0, 0, 0, 0]),
    attempt("request_key", libc::SYS_request_key, [0, 0, 0, 0, 0]),
];

/// Personalities that make exploits easier.
pub const OF_PERSONALITY: [Attempt; 2] = [
    attempt("personality(ADDR_NO_RANDOMIZE)", libc::SYS_personality, [0x004_0000, 0, 0, 0, 0]),
    attempt("personality(READ_IMPLIES_EXEC)", libc::SYS_personality, [0x040_0000, 0, 0, 0, 0]),
];

/// Typing into a terminal, the command with high bits set, too.
pub const OF_TERMINALS: [Attempt; 3] = [
    attempt("ioctl(TIOCSTI)", libc::SYS_ioctl, [0, 0x5412, 0, 0, 0]),
    attempt("ioctl(TIOCSTI, high bits)", libc::SYS_ioctl, [0, 0x1_0000_5412, 0, 0, 0]),
    attempt("ioctl(TIOCLINUX, high bits)", libc::SYS_ioctl, [0, 0xf_0000_541c, 0, 0, 0]),
];

impl Attempt {
    /// Makes the call.
    pub fn make(&self) -> io::Result<()> {
        let [first, second, third, fourth, fifth] = self.arguments;
        // SAFETY: every argument is a number or a null pointer (the tables above hold no other), and
        // none of these calls with these numbers changes memory of the caller, forks it, or ends it.
        let done = unsafe { libc::syscall(self.number, first, second, third, fourth, fifth) };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

/// Asks for the process id by the 32-bit interface. A filter that knows its architecture kills the
/// caller for it.
#[cfg(target_arch = "x86_64")]
pub fn process_id_by_ia32() -> i64 {
    let mut number: i64 = 20; // getpid, in that ABI's own numbers
    // SAFETY: the call takes no argument and touches no memory; the kernel keeps all registers but the
    // result, and may clobber r8 to r11, which are named.
    unsafe {
        std::arch::asm!(
            "int 0x80",
            inout("rax") number,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
            options(nostack)
        );
    }
    number
}
