//! `mount_setattr(2)`

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};

/// What a mount forbids. Combine with [`MountAttributes::and`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MountAttributes(u64);

impl MountAttributes {
    pub const READ_ONLY: Self = Self(libc::MOUNT_ATTR_RDONLY);
    pub const NO_SUID: Self = Self(libc::MOUNT_ATTR_NOSUID);
    pub const NO_DEVICES: Self = Self(libc::MOUNT_ATTR_NODEV);
    pub const NO_EXEC: Self = Self(libc::MOUNT_ATTR_NOEXEC);

    /// Both these and those.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Whether a change covers the mounts below, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    One,
    Recursive,
}

/// Adds restrictions to the mount that `mount` is the root of.
pub fn restrict_mount(
    mount: impl AsFd,
    restrictions: MountAttributes,
    reach: Reach,
) -> io::Result<()> {
    let attributes = MountAttr { set: restrictions.0, ..MountAttr::default() };
    set_attributes(mount.as_fd(), &attributes, reach)
}

/// Shows the files of a detached mount under other owners, as the given user namespace maps them.
pub fn map_owner(mount: impl AsFd, user_namespace: impl AsFd) -> io::Result<()> {
    let attributes = MountAttr {
        set: libc::MOUNT_ATTR_IDMAP,
        user_namespace: u64::from(user_namespace.as_fd().as_raw_fd().cast_unsigned()),
        ..MountAttr::default()
    };
    set_attributes(mount.as_fd(), &attributes, Reach::One)
}

fn set_attributes(mount: BorrowedFd<'_>, attributes: &MountAttr, reach: Reach) -> io::Result<()> {
    let flags = match reach {
        Reach::One => libc::AT_EMPTY_PATH,
        Reach::Recursive => libc::AT_EMPTY_PATH | libc::AT_RECURSIVE,
    };
    // SAFETY: the path is an empty C string, `attributes` is a whole `mount_attr` of the size
    // given, and both outlive the call. The descriptors in it are open: the caller lends them.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const *attributes,
            size_of::<MountAttr>(),
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// `struct mount_attr` of `linux/mount.h`.
#[repr(C)]
#[derive(Default)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

const _: () = assert!(size_of::<MountAttr>() == 32, "MOUNT_ATTR_SIZE_VER0");
