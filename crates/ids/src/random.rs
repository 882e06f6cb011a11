//! Identifiers made at random: a prefix that names the kind, and 96 bits in hex.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Hex digits after the prefix: 12 random bytes, so that ids of one kind never meet by chance.
const DIGITS: usize = 24;

/// Why a string is not an identifier of the kind asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an id of this kind is `{prefix}` followed by {DIGITS} lower-case hex digits")]
pub struct IdError {
    prefix: &'static str,
}

/// One identifier type: a sentence on what it names, and its prefix.
macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Makes a new identifier from the system's random source.
            ///
            /// # Panics
            ///
            /// If the kernel's random source fails, which it does on no supported system.
            pub fn random() -> Self {
                Self(format!("{}{}", $prefix, random_hex()))
            }

            /// The identifier as it goes over the wire.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                match text.strip_prefix($prefix) {
                    Some(digits) if is_lower_hex(digits) => Ok(Self(text.to_owned())),
                    _ => Err(IdError { prefix: $prefix }),
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;

            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }
    };
}

random_id!(
    /// A set of phantom tokens that live and die together.
    SessionId,
    "sess_"
);

random_id!(
    /// A long-lived pair of `/workspace` and `/output`.
    WorkspaceId,
    "wrk_"
);

random_id!(
    /// A workspace as it was at one moment.
    SnapshotId,
    "snap_"
);

random_id!(
    /// A directory tree on disk: what a workspace writes to, and once sealed a layer.
    TreeId,
    "tree_"
);

random_id!(
    /// An API key that is kept in the store.
    KeyId,
    "key_"
);

fn is_lower_hex(digits: &str) -> bool {
    digits.len() == DIGITS && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn random_hex() -> String {
    let mut bytes = [0_u8; DIGITS / 2];
    getrandom::fill(&mut bytes).expect("the kernel's random source answers");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_as_itself() {
        let id = SessionId::random();
        assert_eq!(id.as_str().parse(), Ok(id));
    }

    #[test]
    fn two_ids_differ() {
        assert_ne!(SessionId::random(), SessionId::random());
    }

    #[test]
    fn what_is_not_an_id_is_refused() {
        let hex = "0123456789abcdef01234567";
        for text in [
            "",
            "sess_",
            hex,
            "sess_../../etc/passwd0000",
            &format!("wrk_{hex}"),
            &format!("sess_{hex}0"),
        ] {
            assert!(text.parse::<SessionId>().is_err(), "{text}");
        }
        assert!(format!("sess_{}", hex.to_uppercase()).parse::<SessionId>().is_err());
    }
}
