//! Groups of jails that are gone.
//!
//! Each has a directory of each controller, and removing one takes the kernel a while. So it is done when nobody waits for a
//! jail, and a few at a time: who comes meanwhile shall not wait for all.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::cgroup::Group;

/// How long to wait before trying again to remove what the kernel still counts someone in.
const RETRY: Duration = Duration::from_millis(5);

/// Tried one after the other before the launcher looks whether it is asked for something.
const AT_ONCE: usize = 4;

/// With more than these, some are removed whoever waits.
const MOST: usize = 256;

#[derive(Debug)]
pub(super) struct Leftovers {
    groups: VecDeque<Group>,
    /// Whether the last try removed something: then there may be more.
    goes_on: bool,
}

impl Leftovers {
    pub(super) fn of(groups: impl IntoIterator<Item = Group>) -> Self {
        Self { groups: groups.into_iter().collect(), goes_on: false }
    }

    pub(super) fn add(&mut self, group: impl IntoIterator<Item = Group>) {
        self.groups.extend(group);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Group> {
        self.groups.iter()
    }

    /// Whether there are too many to wait for a pause.
    pub(super) fn are_many(&self) -> bool {
        self.groups.len() > MOST
    }

    /// How long until the next try, in a pause; `None` if there is nothing to try.
    pub(super) fn due(&self) -> Option<Duration> {
        let wait = if self.goes_on { Duration::ZERO } else { RETRY };
        (!self.groups.is_empty()).then_some(wait)
    }

    /// Tries to remove a few. Gives for how many of them the alarm rings: the kernel does that also when a memory group is
    /// removed.
    pub(super) fn remove_some(&mut self) -> u64 {
        let now = Instant::now();
        let mut rung = 0;
        self.goes_on = false;
        for _ in 0..AT_ONCE.min(self.groups.len()) {
            let Some(mut group) = self.groups.pop_front() else { break };
            let watched = group.will_ring();
            let rests = group.rests_until.is_some_and(|until| until > now);
            let removed = !rests && group.remove();
            rung += u64::from(watched && !group.will_ring());
            self.goes_on |= removed;
            if !removed {
                self.groups.push_back(group);
            }
        }
        rung
    }

    /// Tries to remove all; whether none is left.
    pub(super) fn remove_all(&mut self) -> bool {
        self.groups.retain_mut(|group| !group.remove());
        self.groups.is_empty()
    }
}
