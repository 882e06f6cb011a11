//! `landlock_create_ruleset(2)`, asked for its version only.

use std::ptr;

/// The Landlock ABI of this kernel; `None` if it has none, or it is switched off at boot.
pub fn landlock_abi() -> Option<u32> {
    const VERSION: libc::c_uint = 1;
    // SAFETY: with the VERSION flag the kernel reads no memory: the pointer must be null and the
    // size 0, and it makes no descriptor.
    let version = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, ptr::null::<u8>(), 0_usize, VERSION)
    };
    u32::try_from(version).ok().filter(|&version| version > 0)
}
