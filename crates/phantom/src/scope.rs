//! Path globs: what a token may be used for.
//!
//! `*` inside a pattern stands for anything within one segment; at its end, or as `**`, for anything
//! at all. Case counts. A path must match decoded *and* as it was sent: an encoded slash must not
//! make one segment of two, nor two of one.

use std::fmt;
use std::str::FromStr;

use crate::path::UpstreamPath;

const LONGEST: usize = 512;

/// One pattern.
#[derive(Clone, PartialEq, Eq)]
pub struct Scope {
    text: String,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Byte(u8),
    WithinSegment,
    Anything,
}

/// Why a string is not a scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScopeError {
    #[error("a scope begins with `/`")]
    Slash,
    #[error("a scope has at most {LONGEST} characters")]
    Length,
    #[error("a scope has no control characters, `?`, `#` or `..` segments")]
    Character,
}

impl FromStr for Scope {
    type Err = ScopeError;

    fn from_str(text: &str) -> Result<Self, ScopeError> {
        if !text.starts_with('/') {
            return Err(ScopeError::Slash);
        }
        if text.len() > LONGEST {
            return Err(ScopeError::Length);
        }
        if text.contains(|c: char| c.is_control() || c == '?' || c == '#')
            || text.split('/').any(|segment| matches!(segment, "." | ".."))
        {
            return Err(ScopeError::Character);
        }
        Ok(Self { text: text.to_owned(), parts: parts(text) })
    }
}

impl Scope {
    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub(crate) fn allows(&self, path: &UpstreamPath) -> bool {
        self.matches(&path.raw) && self.matches(&path.decoded)
    }

    /// In time pattern × path, whatever the pattern: no backtracking.
    fn matches(&self, path: &str) -> bool {
        let path = path.as_bytes();
        // reached[n]: the pattern so far matches the first n bytes.
        let mut reached = vec![false; path.len() + 1];
        reached[0] = true;
        for part in &self.parts {
            match part {
                Part::Byte(byte) => {
                    for n in (0..path.len()).rev() {
                        reached[n + 1] = reached[n] && path[n] == *byte;
                    }
                    reached[0] = false;
                }
                Part::WithinSegment | Part::Anything => {
                    for n in 0..path.len() {
                        let crosses = *part == Part::Anything || path[n] != b'/';
                        reached[n + 1] |= reached[n] && crosses;
                    }
                }
            }
        }
        reached[path.len()]
    }
}

fn parts(text: &str) -> Vec<Part> {
    let mut parts = Vec::with_capacity(text.len());
    let mut bytes = text.bytes().peekable();
    while let Some(byte) = bytes.next() {
        if byte != b'*' {
            parts.push(Part::Byte(byte));
            continue;
        }
        let mut stars = 1;
        while bytes.next_if_eq(&b'*').is_some() {
            stars += 1;
        }
        let last = bytes.peek().is_none();
        parts.push(if last || stars > 1 { Part::Anything } else { Part::WithinSegment });
    }
    parts
}

impl fmt::Debug for Scope {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn allows(scope: &str, path: &str) -> bool {
        let path = UpstreamPath::parse(path).unwrap();
        scope.parse::<Scope>().unwrap().allows(&path)
    }

    #[test]
    fn the_readmes_example_means_what_it_says() {
        let scope = "/repos/my-org/*/issues*";
        assert!(allows(scope, "/repos/my-org/app/issues"));
        assert!(allows(scope, "/repos/my-org/app/issues/7/comments"));
        assert!(!allows(scope, "/repos/my-org/app/pulls"));
        assert!(!allows(scope, "/repos/my-org/app/x/issues"));
        assert!(!allows(scope, "/repos/my-org-evil/app/issues"));
    }

    #[test]
    fn stars_reach_as_far_as_they_should() {
        assert!(allows("/v1/chat/*", "/v1/chat/completions") && allows("/v1/chat/*", "/v1/chat/"));
        assert!(!allows("/v1/chat/*", "/v1/chat"));
        assert!(allows("/a/**/z", "/a/b/c/z") && !allows("/a/*/z", "/a/b/c/z"));
        assert!(allows("/*", "/anything/at/all") && allows("/v1/models", "/v1/models"));
        assert!(!allows("/v1/models", "/v1/Models") && !allows("/v1/models", "/v1/models/x"));
    }

    #[test]
    fn an_encoded_slash_does_not_cross_a_segment() {
        assert!(!allows("/repos/my-org/*", "/repos%2Fmy-org%2Fx"));
        assert!(!allows("/repos/*/issues", "/repos/a%2Fb/issues"));
        assert!(allows("/repos/o/r/contents/*", "/repos/o/r/contents/src%2Findex.js"));
    }

    #[test]
    fn a_hostile_pattern_costs_no_more_than_its_length() {
        let scope = format!("/{}", "*a".repeat(250));
        assert!(!allows(&scope, &format!("/{}b", "a".repeat(4000))));
    }

    #[test]
    fn what_is_not_a_scope_is_refused() {
        assert_eq!("v1/*".parse::<Scope>(), Err(ScopeError::Slash));
        assert_eq!("".parse::<Scope>(), Err(ScopeError::Slash));
        for text in ["/a/../b", "/a?b", "/a\n"] {
            assert_eq!(text.parse::<Scope>(), Err(ScopeError::Character), "{text}");
        }
        assert_eq!(format!("/{}", "a".repeat(512)).parse::<Scope>(), Err(ScopeError::Length));
    }

    proptest! {
        #[test]
        fn a_plain_scope_matches_only_itself(scope in "/[a-c/]{0,8}", path in "/[a-c/]{0,8}") {
            prop_assert_eq!(scope.parse::<Scope>().unwrap().matches(&path), scope == path);
        }

        #[test]
        fn a_trailing_star_is_a_prefix(prefix in "/[a-c/]{0,5}", path in "/[a-c/]{0,8}") {
            let scope = format!("{prefix}*").parse::<Scope>().unwrap();
            prop_assert_eq!(scope.matches(&path), path.starts_with(&prefix));
        }
    }
}
