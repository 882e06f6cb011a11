//! Paths in one form. What a scope is compared with must be what the upstream will act on.

/// A path is decoded this often before it counts as hostile: servers behind servers decode again.
const MOST_DECODINGS: usize = 4;

/// An upstream path whose meaning does not depend on who reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UpstreamPath {
    /// As it is sent on: doubled slashes made one.
    pub(crate) raw: String,
    /// The same, percent-decoded once.
    pub(crate) decoded: String,
}

/// The service segment of `/v1/<service>/<rest>` and the rest, with its slash.
pub(crate) fn split(path: &str) -> Option<(&str, &str)> {
    let rest = path.strip_prefix("/v1/")?;
    let (service, rest) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, "/"),
    };
    (!service.is_empty()).then_some((service, rest))
}

impl UpstreamPath {
    /// Reads a path. `None` if it has `.` or `..` segments, a backslash or a control character,
    /// plainly or behind any number of percent-encodings, or an encoding that is none.
    pub(crate) fn parse(path: &str) -> Option<Self> {
        let mut level = path.as_bytes().to_vec();
        let mut decoded = None;
        for depth in 0..MOST_DECODINGS {
            if !is_plain(&level) {
                return None;
            }
            let stray = if depth == 0 { Stray::Refused } else { Stray::Kept };
            let next = percent_decode(&level, stray)?;
            let last = next == level;
            decoded.get_or_insert_with(|| next.clone());
            if last {
                // Bytes that are no text match nothing but a star.
                let decoded = decoded.unwrap_or_default();
                let decoded = String::from_utf8_lossy(&decoded);
                return Some(Self { raw: single_slashes(path), decoded: single_slashes(&decoded) });
            }
            level = next;
        }
        None
    }
}

fn is_plain(path: &[u8]) -> bool {
    let bad = |byte: &u8| *byte == b'\\' || *byte < b' ' || *byte == 0x7f;
    let dots = |segment: &[u8]| matches!(segment, b"." | b"..");
    // `;` begins a parameter to some servers: `..;` is `..` there.
    let name = |segment: &[u8]| segment.split(|byte| *byte == b';').next().is_some_and(dots);
    !path.iter().any(bad) && !path.split(|byte| *byte == b'/').any(name)
}

/// What becomes of a `%` that two hex digits do not follow. As sent it is an error; after a decoding
/// it is a percent sign that was encoded.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stray {
    Refused,
    Kept,
}

fn percent_decode(path: &[u8], stray: Stray) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let digits = rest.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let digits = digits.filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                decoded.push(byte);
                rest = &rest[2..];
            }
            None if stray == Stray::Kept => decoded.push(b'%'),
            None => return None,
        }
    }
    Some(decoded)
}

fn single_slashes(path: &str) -> String {
    let mut single = String::with_capacity(path.len());
    for character in path.chars() {
        if character != '/' || !single.ends_with('/') {
            single.push(character);
        }
    }
    single
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_service_is_the_first_segment() {
        assert_eq!(
            split("/v1/openai/v1/chat/completions"),
            Some(("openai", "/v1/chat/completions"))
        );
        assert_eq!(split("/v1/github"), Some(("github", "/")));
        for path in ["/", "/v1/", "/v1", "/v2/openai/x", "/healthz"] {
            assert_eq!(split(path), None, "{path}");
        }
    }

    #[test]
    fn ways_around_a_scope_are_refused() {
        for path in [
            "/v1/chat/../files",
            "/v1/chat/%2e%2e/files",
            "/v1/chat/%2E./files",
            "/v1/chat/..%2ffiles",
            "/v1/chat/%252e%252e/files",
            "/v1/chat/%25252e%25252e/files",
            "/v1/chat/..;/files",
            "/./x",
            "/a\\..\\b",
            "/a%5c..%5cb",
            "/a%00b",
            "/a%0d%0ab",
            "/a%zz",
            "/a%2",
            "/a%",
        ] {
            assert_eq!(UpstreamPath::parse(path), None, "{path}");
        }
    }

    #[test]
    fn ordinary_paths_pass_as_they_are() {
        let path = UpstreamPath::parse("/repos/o/r/contents/src%2Findex.js").unwrap();
        assert_eq!(path.raw, "/repos/o/r/contents/src%2Findex.js");
        assert_eq!(path.decoded, "/repos/o/r/contents/src/index.js");
        assert_eq!(UpstreamPath::parse("//v1///models").unwrap().raw, "/v1/models");
        assert_eq!(UpstreamPath::parse("/a.b/..c/...").unwrap().raw, "/a.b/..c/...");
        assert_eq!(UpstreamPath::parse("/100%25.txt").unwrap().decoded, "/100%.txt");
        assert_eq!(UpstreamPath::parse("/%25%25").unwrap().decoded, "/%%");
        assert!(UpstreamPath::parse("/%ff").is_some());
        assert_eq!(UpstreamPath::parse("/b%C3%BCcher").unwrap().decoded, "/bücher");
    }

    proptest! {
        #[test]
        fn what_passes_has_no_dot_segment_in_either_form(path in "/(\\.|%2e|%25|/|a|;|%2f){0,12}") {
            if let Some(path) = UpstreamPath::parse(&path) {
                for form in [&path.raw, &path.decoded] {
                    prop_assert!(!form.split('/').any(|segment| segment == "." || segment == ".."));
                }
            }
        }
    }
}
