//! Friendly names for workspaces that were given none.

const ADJECTIVES: [&str; 32] = [
    "amber", "bold", "brisk", "calm", "clear", "clever", "cosy", "crisp", "eager", "early", "fair",
    "fresh", "gentle", "glad", "golden", "grand", "happy", "keen", "kind", "light", "lively",
    "lucky", "mellow", "merry", "noble", "proud", "quick", "quiet", "rapid", "sunny", "swift",
    "warm",
];

const NOUNS: [&str; 32] = [
    "badger", "beacon", "birch", "brook", "canyon", "cedar", "comet", "coral", "crane", "delta",
    "ember", "falcon", "fern", "finch", "fjord", "harbor", "heron", "island", "lantern", "maple",
    "meadow", "orchard", "otter", "pebble", "pine", "raven", "reef", "river", "sparrow", "summit",
    "thicket", "willow",
];

/// `adjective-noun-hhhh`, drawn from the random digits of an id.
pub(super) fn friendly(id: &ids::WorkspaceId) -> String {
    let digits = id.as_str().trim_start_matches("wrk_");
    let number = |from: usize| {
        let byte = digits.get(from..from + 2).and_then(|two| usize::from_str_radix(two, 16).ok());
        byte.unwrap_or_default() % 32
    };
    let tail = digits.get(4..8).unwrap_or_default();
    format!("{}-{}-{tail}", ADJECTIVES[number(0)], NOUNS[number(2)])
}

/// A label as sent; a blank one is none.
pub(super) fn given(label: Option<&str>) -> Option<String> {
    label.map(str::trim).filter(|label| !label.is_empty()).map(str::to_owned)
}
