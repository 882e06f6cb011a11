//! `seccomp(2)`

use std::io;

use crate::bpf::Instruction;

/// The kernel takes no longer program (`BPF_MAXINSNS`).
pub const MAX_INSTRUCTIONS: usize = 4096;

/// Puts the calling thread, and all it will start, under a filter. There is no way back.
///
/// The kernel checks the program: a malformed one is refused, not run.
pub fn install_filter(program: &[Instruction]) -> io::Result<()> {
    let length = u16::try_from(program.len())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "seccomp filter is too long"))?;
    let program = libc::sock_fprog {
        len: length,
        // The kernel only reads it; the C type has no `const`.
        filter: program.as_ptr().cast_mut().cast(),
    };
    // SAFETY: `program` names `len` instructions laid out as `sock_filter` (same size, asserted
    // above, and same field order), all alive during the call, which copies them.
    let done = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program)
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
