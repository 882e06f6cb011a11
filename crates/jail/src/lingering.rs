//! Inits whose jail has ended and who are alone in it: they end when nobody waits for a jail.
//!
//! The end of an init is the end of its namespaces and mounts, about a millisecond of the kernel's time
//! that would be taken from whoever waits for an answer. So it waits for a pause, as the making of blanks
//! does. Nothing of a tenant's runs meanwhile; what its files take of memory is limited here.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use launch::cgroup::Statistics;
use rustix::process::{Signal, pidfd_send_signal};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use crate::conversation::Conversation;

/// Without a start for this long, there is a pause: longer than what many in flight take together before the
/// next is asked for.
const PAUSE: Duration = Duration::from_millis(20);

/// None stays longer than this and a pause, whoever waits.
const LONGEST: Duration = Duration::from_millis(200);

/// At a pause they end a few at a time, for who comes meanwhile.
const AT_ONCE: usize = 4;
const BETWEEN: Duration = Duration::from_millis(5);

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
    /// And when each came, the oldest first.
    inits: Mutex<VecDeque<(Instant, Arc<Init>)>>,
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
        let mut inits = self.lock();
        // Otherwise it ends here and now.
        if inits.len() < MOST {
            inits.push_back((Instant::now(), init));
            self.came.notify_one();
        }
    }

    /// Takes out the oldest: a few, or all that came before this.
    fn take(&self, at_most: usize, before: Option<Instant>) -> Vec<Arc<Init>> {
        let mut inits = self.lock();
        let old = |came: &Instant| before.is_none_or(|before| *came < before);
        let count = inits.iter().take_while(|(came, _)| old(came)).count().min(at_most);
        inits.drain(..count).map(|(_, init)| init).collect()
    }

    fn end_oldest(&self) {
        drop(self.take(MOST, Instant::now().checked_sub(LONGEST)));
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(Instant, Arc<Init>)>> {
        self.inits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends what lingers at each pause.
pub(crate) async fn end(lingering: Arc<Lingering>) {
    loop {
        lingering.came.notified().await;
        while !lingering.lock().is_empty() {
            let before = lingering.starts.load(Ordering::Relaxed);
            sleep(PAUSE).await;
            lingering.end_oldest();
            while lingering.starts.load(Ordering::Relaxed) == before {
                if lingering.take(AT_ONCE, None).is_empty() {
                    break;
                }
                sleep(BETWEEN).await;
                lingering.end_oldest();
            }
        }
    }
}
