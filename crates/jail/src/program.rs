//! The program the launcher is started from: a sealed copy of our own.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

/// Copies a program into memory that nobody can write to again.
///
/// Inside a jail, init's `/proc/1/exe` is this copy. If it were the file on disk, a process that got
/// hold of it could overwrite the program the next jail is started with (CVE-2019-5736), wherever
/// the jail's user may write to that file, as it may when an ordinary user runs us.
pub(crate) fn sealed_copy(program: &Path) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memory = match memfd_create("agentjail", flags | MemfdFlags::EXEC) {
        // Before Linux 6.3 every memory file could be executed, and the flag was unknown.
        Err(rustix::io::Errno::INVAL) => memfd_create("agentjail", flags)?,
        other => other?,
    };
    let mut memory = File::from(memory);
    io::copy(&mut File::open(program)?, &mut memory)?;
    let memory = OwnedFd::from(memory);
    fcntl_add_seals(
        &memory,
        SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE,
    )?;
    Ok(memory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Seek as _, Write as _};

    #[test]
    fn the_copy_is_whole_and_cannot_be_changed() {
        let source = std::env::current_exe().unwrap();
        let mut copy = File::from(sealed_copy(&source).unwrap());
        copy.rewind().unwrap();
        assert!(copy.write_all(b"x").is_err());
        let mut bytes = Vec::new();
        copy.read_to_end(&mut bytes).unwrap();
        assert!(bytes == std::fs::read(source).unwrap());
    }
}
