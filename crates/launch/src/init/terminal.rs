//! A terminal for a command: a pair of the jail's own `/dev/pts`.

use std::os::fd::OwnedFd;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::message::TerminalSize;

/// Opens a pair: the end for the owner, and the command's.
pub(super) fn open(size: TerminalSize) -> rustix::io::Result<(OwnedFd, OwnedFd)> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let owner = openat(CWD, "/dev/pts/ptmx", flags, Mode::empty())?;
    unlockpt(&owner)?;
    let peer = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let commands = ioctl_tiocgptpeer(&owner, peer)?;
    let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&owner, size)?;
    Ok((owner, commands))
}
