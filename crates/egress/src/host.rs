//! Host names in one form, so that two spellings of a name are one name.

use std::fmt;

/// The longest name DNS can carry, as text.
const LONGEST: usize = 253;
const LONGEST_LABEL: usize = 63;

/// A checked DNS name: lower-case, no trailing dot, only letters, digits, `-` and `_`.
///
/// NUL, `%`, `@`, `#`, brackets, spaces and what is not ASCII are refused rather than repaired: a
/// name that means one thing to us and another to the resolver is how filters are passed.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostName(String);

/// Why a string is not a host name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostNameError {
    #[error("a host name has 1 to {LONGEST} characters")]
    Length,
    #[error("a part of a host name has 1 to {LONGEST_LABEL} characters between dots")]
    Label,
    #[error(
        "a host name holds letters, digits, `-`, `_` and dots only (write other names as `xn--…`)"
    )]
    Character,
    #[error("a host name does not end in a number: write an address in its usual form")]
    Number,
}

impl HostName {
    /// Reads a name in any case, with or without a trailing dot.
    pub fn parse(text: &str) -> Result<Self, HostNameError> {
        let text = text.strip_suffix('.').unwrap_or(text);
        if text.is_empty() || text.len() > LONGEST {
            return Err(HostNameError::Length);
        }
        for label in text.split('.') {
            if label.is_empty() || label.len() > LONGEST_LABEL {
                return Err(HostNameError::Label);
            }
            let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
            if !label.bytes().all(plain) || label.starts_with('-') || label.ends_with('-') {
                return Err(HostNameError::Character);
            }
        }
        // `2130706433`, `0x7f.1` and `127.1` are addresses to some resolvers.
        let last = text.rsplit('.').next().unwrap_or_default();
        if last.bytes().all(|b| b.is_ascii_digit()) || last.to_ascii_lowercase().starts_with("0x") {
            return Err(HostNameError::Number);
        }
        Ok(Self(text.to_ascii_lowercase()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this name lies below `suffix`, by whole labels.
    pub fn is_below(&self, suffix: &Self) -> bool {
        self.0.strip_suffix(&suffix.0).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for HostName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn spellings_of_a_name_are_one_name() {
        for text in ["API.example.com", "api.example.com.", "api.EXAMPLE.com"] {
            assert_eq!(HostName::parse(text).unwrap().as_str(), "api.example.com");
        }
    }

    #[test]
    fn tricks_are_refused() {
        let long = format!("{}.com", "a".repeat(64));
        let longer = ["a".repeat(60).as_str(); 5].join(".");
        for text in [
            "",
            ".",
            "..",
            "a..b",
            "evil\0.example.com",
            "a b",
            "a\r\nb",
            "a\tb",
            "a%00.example.com",
            "user@example.com",
            "example.com#x",
            "example.com/x",
            "[::1]",
            "bücher.example",
            "-a.com",
            "a-.com",
            "127.1",
            "2130706433",
            "0x7f000001",
            "1.2.3.4",
            "a.0x1",
            "example.com:443",
            "*.example.com",
            &long,
            &longer,
        ] {
            assert!(HostName::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn below_means_whole_labels() {
        let suffix = HostName::parse("example.com").unwrap();
        let below = |text| HostName::parse(text).unwrap().is_below(&suffix);
        assert!(below("a.example.com") && below("a.b.example.com"));
        assert!(
            !below("example.com") && !below("badexample.com") && !below("example.com.evil.net")
        );
    }

    proptest! {
        #[test]
        fn what_is_accepted_is_plain_and_reads_back_the_same(text in "\\PC{0,300}") {
            if let Ok(name) = HostName::parse(&text) {
                prop_assert!(name.as_str().bytes().all(|b| b.is_ascii_graphic() && !b.is_ascii_uppercase()));
                prop_assert_eq!(HostName::parse(name.as_str()), Ok(name.clone()));
            }
        }
    }
}
