//! The order of paths: a directory, then all below it, then what follows.

use std::cmp::Ordering;

/// Compares two paths name by name: `a`, `a/b`, `a-c` in this order, which bytes alone do not give.
pub(crate) fn compare(a: &[u8], b: &[u8]) -> Ordering {
    // A name holds neither NUL nor a slash, so a slash may count as the lowest byte.
    let key = |byte: &u8| if *byte == b'/' { 0 } else { *byte };
    a.iter().map(key).cmp(b.iter().map(key))
}

/// Whether a path is below a directory.
pub(crate) fn is_below(path: &[u8], directory: &[u8]) -> bool {
    path.len() > directory.len() && path.starts_with(directory) && path[directory.len()] == b'/'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_below_a_directory_follows_it() {
        let mut paths: Vec<&[u8]> = vec![b"a-c", b"a/b", b"b", b"a", b"a/b/c", b"a.d"];
        paths.sort_by(|a, b| compare(a, b));
        assert_eq!(paths, [&b"a"[..], b"a/b", b"a/b/c", b"a-c", b"a.d", b"b"]);
        assert!(is_below(b"a/b", b"a") && !is_below(b"a-c", b"a") && !is_below(b"a", b"a"));
    }
}
