//! Which users this process's user namespace knows: all of a machine's, or some in a container.

use std::fs;

/// Far from the ids of people, services, and the ranges that containers are commonly given.
const OWNERS: (u32, u32) = (1_878_917_120, 1 << 16);
const JAILS: (u32, u32) = (1_878_982_656, 1 << 20);

const NOBODY: u32 = 65_534;

/// Ids that are known, as a first one and a count.
#[derive(Debug, Clone)]
pub struct UidMap(Vec<(u32, u32)>);

impl UidMap {
    /// That of this process. One that cannot be read knows all.
    pub fn own() -> Self {
        let all = "0 0 4294967295".to_owned();
        Self::parse(&fs::read_to_string("/proc/self/uid_map").unwrap_or(all))
    }

    /// Lines of `/proc/<pid>/uid_map`.
    pub fn parse(text: &str) -> Self {
        let extent = |line: &str| {
            let mut numbers = line.split_whitespace().map(str::parse);
            let (first, _, count) =
                (numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?);
            let _: u32 = first;
            Some((first, count))
        };
        Self(text.lines().filter_map(extent).collect())
    }

    /// Whether it knows this many from this one on.
    pub fn knows(&self, first: u32, count: u32) -> bool {
        let end = |first, count| u64::from(first) + u64::from(count);
        self.0
            .iter()
            .any(|(known, many)| *known <= first && end(first, count) <= end(*known, *many))
    }

    /// The host users that jails run as where nobody chose any: the first, and how many. In a container, the third quarter
    /// of the ids it knows; none if they are too few.
    pub fn jails(&self) -> (u32, u32) {
        if self.knows(JAILS.0, JAILS.1) {
            return JAILS;
        }
        let (first, count) = self.largest();
        (first + count / 4 * 2, count / 4)
    }

    /// How many host users jails may have from this one on: as far as they are known, and own no namespaces.
    pub fn room_from(&self, first: u32) -> u32 {
        let end = |(known, many): &(u32, u32)| known.checked_add(*many).unwrap_or(u32::MAX);
        let extent = self.0.iter().find(|extent| extent.0 <= first && first < end(extent));
        let known = extent.map_or(0, |extent| end(extent) - first);
        let (owners, _) = self.namespace_owners();
        let before_owners = owners.checked_sub(first).filter(|room| *room > 0).unwrap_or(u32::MAX);
        known.min(before_owners).min(JAILS.1)
    }

    /// The host users that own the user namespaces of jails: the first, and how many. In a container, the last quarter.
    pub(crate) fn namespace_owners(&self) -> (u32, u32) {
        if self.knows(OWNERS.0, OWNERS.1) {
            return OWNERS;
        }
        let (first, count) = self.largest();
        let (owners, end) = (first + count / 4 * 3, first + count / 4 * 4);
        // The kernel shows as this one whom it does not know.
        let end = if owners <= NOBODY { end.min(NOBODY) } else { end };
        (owners, end.saturating_sub(owners).min(OWNERS.1))
    }

    /// Most ids in a row: the first, and how many.
    fn largest(&self) -> (u32, u32) {
        self.0.iter().copied().max_by_key(|(_, count)| *count).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_knows_all_and_a_container_some() {
        let machine = UidMap::parse("         0          0 4294967295\n");
        assert!(machine.knows(0, 1) && machine.knows(4_294_967_294, 1));
        let container = UidMap::parse("0 1000 1\n1 100000 65535\n");
        assert!(container.knows(0, 1) && container.knows(1, 65_535));
        assert!(!container.knows(0, 2) && !container.knows(65_535, 2));
        assert_eq!(machine.jails(), JAILS);
        assert_eq!(machine.room_from(JAILS.0), 1 << 20);
        assert_eq!(machine.room_from(OWNERS.0 - 7), 7);
        assert_eq!(machine.room_from(u32::MAX - 10), 10);
    }

    #[test]
    fn in_a_container_jails_and_owners_do_not_meet() {
        for (text, jails, owners) in [
            ("0 100000 65536\n", (32_768, 16_384), (49_152, 16_382)),
            ("0 1000 1\n1 100000 65536\n", (32_769, 16_384), (49_153, 16_381)),
            ("0 100000 8\n", (4, 2), (6, 2)),
            ("0 0 1\n", (0, 0), (0, 0)),
            ("garbage\n", (0, 0), (0, 0)),
        ] {
            let known = UidMap::parse(text);
            assert_eq!((known.jails(), known.namespace_owners()), (jails, owners), "{text}");
            if jails.1 > 0 {
                assert_eq!(known.room_from(jails.0), jails.1);
            }
        }
        // Beyond the owners there is the rest, and beyond that nothing.
        let known = UidMap::parse("0 100000 65536\n");
        assert_eq!((known.room_from(65_000), known.room_from(65_536)), (536, 0));
    }
}
