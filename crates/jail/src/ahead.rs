//! What the next jail and its owner will speak through, made before anybody asks for a jail.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use tokio::sync::Notify;
use tokio::time::sleep;

use crate::pipes::Ends;

/// How long after it was taken another is made: a short command has ended by then.
const LATER: Duration = Duration::from_millis(2);

/// The socket that init reports to, our end of it, and the streams of a command.
#[derive(Debug)]
pub(crate) struct Ahead {
    pub(crate) report: OwnedFd,
    pub(crate) ours: OwnedFd,
    pub(crate) ends: Ends,
}

impl Ahead {
    pub(crate) fn new() -> io::Result<Self> {
        let (ours, report) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        rustix::io::ioctl_fionbio(&ours, true)?;
        Ok(Self { report, ours, ends: Ends::new()? })
    }
}

/// Room for one.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    made: Mutex<Option<Ahead>>,
    taken: Notify,
}

impl Slot {
    /// Takes it, or makes one now.
    pub(crate) fn take(&self) -> io::Result<Ahead> {
        self.taken.notify_one();
        let made = self.made.lock().unwrap_or_else(PoisonError::into_inner).take();
        made.map_or_else(Ahead::new, Ok)
    }

    fn fill(&self) {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if made.is_none() {
            // Without descriptors to spare, whoever needs them will hear of it.
            *made = Ahead::new().ok();
        }
    }
}

/// Fills the slot each time, a little after it was emptied.
pub(crate) async fn keep_filled(slot: Arc<Slot>) {
    loop {
        slot.taken.notified().await;
        sleep(LATER).await;
        slot.fill();
    }
}
