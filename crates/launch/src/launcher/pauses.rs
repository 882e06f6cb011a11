//! Whether anybody waits for a jail: what can be done later is done when nobody does.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How long there must have been no request: long enough for a caller that starts one jail after the
/// other not to meet us at it.
const QUIET: Duration = Duration::from_millis(5);

/// The same in a rush. Who keeps many jails in flight asks for none until the first of them have
/// ended, and all of them share the processors with us.
const QUIET_IN_A_RUSH: Duration = Duration::from_millis(20);

/// So many starts within this time are a rush: more than one after the other could be.
const RUSH: usize = 8;
const RUSH_WITHIN: Duration = Duration::from_millis(10);

/// When requests came.
#[derive(Debug)]
pub(super) struct Requests {
    last: Instant,
    /// The last starts, at most [`RUSH`], the oldest first.
    starts: VecDeque<Instant>,
}

impl Requests {
    pub(super) fn new(now: Instant) -> Self {
        Self { last: now, starts: VecDeque::with_capacity(RUSH) }
    }

    /// A request came.
    pub(super) fn note(&mut self, now: Instant) {
        self.last = now;
    }

    /// A request for a jail came.
    pub(super) fn note_start(&mut self, now: Instant) {
        self.note(now);
        if self.starts.len() == RUSH {
            self.starts.pop_front();
        }
        self.starts.push_back(now);
    }

    /// How long ago the last request came.
    pub(super) fn since(&self, now: Instant) -> Duration {
        now.duration_since(self.last)
    }

    /// How long until there is a pause if no request comes; zero in a pause.
    pub(super) fn until_pause(&self, now: Instant) -> Duration {
        let quiet = if self.is_rush() { QUIET_IN_A_RUSH } else { QUIET };
        quiet.saturating_sub(self.since(now))
    }

    fn is_rush(&self) -> bool {
        let first = self.starts.front().filter(|_| self.starts.len() == RUSH);
        first.is_some_and(|first| self.last.duration_since(*first) <= RUSH_WITHIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn a_pause_comes_soon_after_one_start_and_later_after_a_rush() {
        let began = Instant::now();
        let mut requests = Requests::new(began);
        for n in 0..50 {
            // One after the other.
            requests.note_start(began + ms(n * 4));
        }
        assert_eq!(requests.until_pause(began + ms(198)), ms(3));
        assert_eq!(requests.until_pause(began + ms(201)), ms(0));
        for n in 0..16 {
            requests.note_start(began + ms(210 + n));
        }
        assert_eq!(requests.until_pause(began + ms(235)), ms(10));
        assert_eq!(requests.until_pause(began + ms(245)), ms(0));
        requests.note_start(began + ms(400));
        assert_eq!(requests.until_pause(began + ms(405)), ms(0));
    }
}
