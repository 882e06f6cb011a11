//! Which users this process's user namespace knows: all of a machine's, or some in a container.

use std::fs;

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
    pub(crate) fn parse(text: &str) -> Self {
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

    /// Most ids in a row: the first, and how many.
    pub fn largest(&self) -> (u32, u32) {
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
        assert_eq!(container.largest(), (1, 65_535));
        assert_eq!(UidMap::parse("garbage\n").largest(), (0, 0));
    }
}
