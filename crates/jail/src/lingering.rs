//! Inits whose jail has ended and who are alone in it: they end when nobody waits for a jail.
//!
//! The end of an init is the end of its namespaces and mounts, about a millisecond of the kernel's time
//! that would be taken from whoever waits for an answer. So it waits for a pause, as the making of blanks
//! does. Nothing of a tenant's runs meanwhile; what its files take of memory is limited here.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use launch::cgroup::Statistics;
use rustix::process::{Signal, pidfd_send_signal};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use crate::conversation::Conversation;

/// Without a start for this long, there is a pause: longer than what many in flight take together before the
/// next is asked for.
const PAUSE: Duration = Duration::from_millis(20);

/// None stays longer than this, whoever waits.
const LONGEST: Duration = Duration::from_millis(200);

/// Nor do more than these.
const MOST: usize = 64;

/// A jail whose files take more memory than this does not linger.
const MOST_BYTES: u64 = 2 << 20;

/// A jail's init, and the talk with it. Killing init kills every process of its PID namespace; there is no
/// other way out of that.
#[derive(Debug)]
pub(crate) struct Init {
    pub(crate) pid: u32,
    pub(crate) process: OwnedFd,
    pub(crate) conversation: Arc<Conversation>,
}

impl Init {
    pub(crate) fn kill(&self) {
        match pidfd_send_signal(&self.process, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => tracing::error!(jail.pid = self.pid, %error, "jail not killed"),
        }
    }
}

impl Drop for Init {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Those of one engine.
#[derive(Debug, Default)]
pub(crate) struct Lingering {
    inits: Mutex<Vec<Arc<Init>>>,
    came: Notify,
    /// Counts jails that were asked for.
    starts: AtomicU64,
}

impl Lingering {
    /// Whether a jail with these counters holds nothing but its init, and little memory.
    pub(crate) fn may(statistics: &Statistics) -> bool {
        statistics.pids_current == 1 && statistics.memory_current_bytes <= MOST_BYTES
    }

    /// Somebody waits for a jail.
    pub(crate) fn note_start(&self) {
        self.starts.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes an init whose jail has ended.
    pub(crate) fn add(&self, init: Arc<Init>) {
        let mut inits = self.inits.lock().unwrap_or_else(PoisonError::into_inner);
        // Otherwise it ends here and now.
        if inits.len() < MOST {
            inits.push(init);
            self.came.notify_one();
        }
    }

    fn take(&self) -> Vec<Arc<Init>> {
        std::mem::take(&mut *self.inits.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Ends what lingers at each pause.
pub(crate) async fn end(lingering: Arc<Lingering>) {
    loop {
        lingering.came.notified().await;
        let latest = Instant::now() + LONGEST;
        loop {
            let before = lingering.starts.load(Ordering::Relaxed);
            sleep(PAUSE).await;
            let paused = lingering.starts.load(Ordering::Relaxed) == before;
            if paused || Instant::now() >= latest {
                break;
            }
        }
        drop(lingering.take());
    }
}
