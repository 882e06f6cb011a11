//! `SO_ATTACH_FILTER`

use std::io;
use std::os::fd::{AsFd, AsRawFd as _};

use crate::bpf::Instruction;

/// Lets only those packets into a socket's queue that a classic BPF program accepts. The kernel checks
/// the program.
pub fn attach_filter(socket: impl AsFd, program: &[Instruction]) -> io::Result<()> {
    let length = u16::try_from(program.len())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "socket filter is too long"))?;
    let program = libc::sock_fprog {
        len: length,
        // The kernel only reads it; the C type has no `const`.
        filter: program.as_ptr().cast_mut().cast(),
    };
    let size = libc::socklen_t::try_from(size_of::<libc::sock_fprog>())
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: the option takes a `sock_fprog` of this size, which names `len` instructions laid out as
    // `sock_filter` (asserted where `Instruction` is), all alive during the call, which copies them.
    let done = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
