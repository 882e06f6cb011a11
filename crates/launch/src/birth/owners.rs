//! Who owns the user namespaces of jails.

use std::cell::Cell;
use std::hash::{BuildHasher as _, RandomState};

use crate::uid_map::UidMap;

/// Below the users that jails run as by default.
const FIRST: u32 = 1_878_917_120;
const COUNT: u32 = 1 << 16;

/// The kernel's 65,534 is nobody, and 65,535 no id at all for some.
const NOT_AT_THE_END: u32 = 2;

/// Host users that own the user namespaces of jails, and nothing else, each in its turn: what the kernel counts by user
/// (inotify watches, pending signals, …) is charged to a namespace's owner, too. That must not be root, and is another
/// jail's only when all have had their turn.
#[derive(Debug)]
pub(super) struct Owners {
    first: u32,
    count: u32,
    next: Cell<u32>,
}

impl Owners {
    /// In a user namespace where the usual ones are unknown (a container), the upper quarter of what is known there.
    pub(super) fn of(known: &UidMap) -> Self {
        let (first, count) = if known.knows(FIRST, COUNT) {
            (FIRST, COUNT)
        } else {
            let (first, count) = known.largest();
            let quarter = (count / 4).min(COUNT);
            (first + (count - quarter).saturating_sub(NOT_AT_THE_END), quarter)
        };
        // Another launcher begins elsewhere.
        let any = RandomState::new().hash_one(0) % u64::from(count.max(1));
        Self { first, count, next: Cell::new(u32::try_from(any).unwrap_or_default()) }
    }

    /// The next one; `None` if there are none to be had.
    pub(super) fn next(&self) -> Option<u32> {
        let n = self.next.get();
        self.next.set((n + 1).checked_rem(self.count)?);
        Some(self.first + n)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn all_have_their_turn() {
        let owners = Owners::of(&UidMap::parse("         0          0 4294967295\n"));
        let all: BTreeSet<u32> = (0..COUNT).filter_map(|_| owners.next()).collect();
        assert_eq!(all.len(), 65_536);
        assert_eq!((all.first(), all.last()), (Some(&FIRST), Some(&(FIRST + COUNT - 1))));
    }

    #[test]
    fn in_a_container_they_are_the_last_it_knows() {
        let owners = Owners::of(&UidMap::parse("         0     100000      65536\n"));
        let all: BTreeSet<u32> = (0..COUNT).filter_map(|_| owners.next()).collect();
        assert_eq!((all.first(), all.last(), all.len()), (Some(&49_150), Some(&65_533), 16_384));
        assert_eq!(Owners::of(&UidMap::parse("0 1000 1\n")).next(), None);
    }
}
