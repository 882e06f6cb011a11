//! Who owns the user namespaces of jails.

use std::cell::Cell;
use std::hash::{BuildHasher as _, RandomState};

use crate::uid_map::UidMap;

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
    pub(super) fn of(known: &UidMap) -> Self {
        let (first, count) = known.namespace_owners();
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
        let owners = Owners::of(&UidMap::parse("0 100000 65536\n"));
        let all: BTreeSet<u32> = (0..16_382).filter_map(|_| owners.next()).collect();
        assert_eq!((all.first(), all.last(), all.len()), (Some(&49_152), Some(&65_533), 16_382));
        assert_eq!(Owners::of(&UidMap::parse("0 1000 1\n")).next(), None);
    }
}
