//! Who owns the user namespaces of jails.

use std::cell::Cell;
use std::hash::{BuildHasher as _, RandomState};

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
    /// Those of a process whose `/proc/self/uid_map` this is. In a user namespace where the usual ones are unknown
    /// (a container), the upper quarter of what is known there.
    pub(super) fn of(uid_map: &str) -> Self {
        let extents = || uid_map.lines().filter_map(extent);
        let usual = |(first, count): (u32, u32)| {
            first <= FIRST && u64::from(first) + u64::from(count) >= u64::from(FIRST + COUNT)
        };
        let (first, count) = if uid_map.is_empty() || extents().any(usual) {
            (FIRST, COUNT)
        } else {
            let (first, count) = extents().max_by_key(|(_, count)| *count).unwrap_or((0, 0));
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

/// The ids that a line of an id map makes known: the first, and how many.
fn extent(line: &str) -> Option<(u32, u32)> {
    let mut numbers = line.split_whitespace().map(str::parse);
    let (first, _, count) = (numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?);
    let _: u32 = first;
    Some((first, count))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn all_have_their_turn() {
        let owners = Owners::of("         0          0 4294967295\n");
        let all: BTreeSet<u32> = (0..COUNT).filter_map(|_| owners.next()).collect();
        assert_eq!(all.len(), 65_536);
        assert_eq!((all.first(), all.last()), (Some(&FIRST), Some(&(FIRST + COUNT - 1))));
    }

    #[test]
    fn in_a_container_they_are_the_last_it_knows() {
        let owners = Owners::of("         0     100000      65536\n");
        let all: BTreeSet<u32> = (0..COUNT).filter_map(|_| owners.next()).collect();
        assert_eq!((all.first(), all.last(), all.len()), (Some(&49_150), Some(&65_533), 16_384));
        assert_eq!(Owners::of("0 1000 1\n").next(), None);
        assert!(Owners::of("").next().is_some());
    }
}
