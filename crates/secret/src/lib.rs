//! Values that cannot be printed; sealing them for the disk; hashes of tokens.
//!
//! A real key is a [`Secret`] from the moment it enters the process: its `Debug` is `[secret]`, it
//! has no `Display`, and its memory is wiped when it goes. What is written to disk is
//! [`Sealed`] by the [`Vault`]; what is only ever compared is kept as a keyed hash.

mod phantom_token;
mod vault;

use std::fmt;

use secrecy::{ExposeSecret as _, SecretString};

pub use phantom_token::{PhantomToken, TOKEN_PREFIX, TokenHash};
pub use vault::{MASTER_KEY_BYTES, OpenError, Sealed, Vault};

/// A real key. It can be exposed on purpose, but not printed by accident.
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// Takes ownership of a key.
    pub fn new(key: String) -> Self {
        Self(SecretString::from(key))
    }

    /// The key itself. Every use of this function is a place where a key could leak.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[secret]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_does_not_print() {
        assert_eq!(format!("{:?}", Secret::new("sk-real".to_owned())), "[secret]");
    }
}
