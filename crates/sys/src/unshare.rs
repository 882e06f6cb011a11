//! `unshare(2)`

use std::io;

use crate::Namespaces;

/// Moves the calling process into new namespaces of its own.
pub fn unshare(namespaces: Namespaces) -> io::Result<()> {
    let flags = i32::try_from(namespaces.bits())
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: `Namespaces` holds namespace flags only. What makes `unshare` unsafe in general is
    // `CLONE_FILES`, which would give threads different descriptor tables.
    if unsafe { libc::unshare(flags) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
