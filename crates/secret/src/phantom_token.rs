//! Phantom tokens: what a jail holds instead of a key.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use subtle::ConstantTimeEq as _;

use crate::Secret;

/// How every phantom token begins.
pub const TOKEN_PREFIX: &str = "phm_";

const TOKEN_BYTES: usize = 32;

/// A phantom token: `phm_` and 64 hex digits. Worth nothing away from the phantom proxy, but a
/// bearer token there, so it does not print either.
#[derive(Clone)]
pub struct PhantomToken([u8; TOKEN_BYTES]);

/// Why a string is not a phantom token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a phantom token is `phm_` followed by 64 hex digits")]
pub struct TokenError;

impl PhantomToken {
    /// Makes a token of 256 random bits.
    ///
    /// # Panics
    ///
    /// If the kernel's random source fails.
    pub fn random() -> Self {
        let mut bytes = [0_u8; TOKEN_BYTES];
        getrandom::fill(&mut bytes).expect("the kernel's random source answers");
        Self(bytes)
    }

    /// The text a client sends.
    pub fn reveal(&self) -> Secret {
        let digits: String = self.0.iter().map(|byte| format!("{byte:02x}")).collect();
        Secret::new(format!("{TOKEN_PREFIX}{digits}"))
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl FromStr for PhantomToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let digits = text.strip_prefix(TOKEN_PREFIX).ok_or(TokenError)?.as_bytes();
        if digits.len() != 2 * TOKEN_BYTES {
            return Err(TokenError);
        }
        let mut bytes = [0_u8; TOKEN_BYTES];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Debug for PhantomToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[phantom token]")
    }
}

fn nibble(digit: u8) -> Result<u8, TokenError> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        b'A'..=b'F' => Ok(digit - b'A' + 10),
        _ => Err(TokenError),
    }
}

/// The keyed hash of a token, as stored and looked up.
#[derive(Clone, Copy)]
pub struct TokenHash(pub(crate) [u8; 32]);

impl TokenHash {
    /// Reads back a stored hash; `None` if the length is wrong.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The bytes to store.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// In constant time: the comparison that decides whether a token is known.
impl PartialEq for TokenHash {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for TokenHash {}

/// For the table it is looked up in: equal hashes have equal bytes.
impl Hash for TokenHash {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[token hash]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Vault;

    #[test]
    fn a_token_reads_back_as_itself_in_either_case() {
        let vault = Vault::new(&Vault::random_master_key());
        let token = PhantomToken::random();
        let text = token.reveal().expose().to_owned();
        assert_eq!(text.len(), 68);
        let hash = vault.token_hash(&token);
        assert_eq!(vault.token_hash(&text.parse().unwrap()), hash);
        let upper = format!("{TOKEN_PREFIX}{}", text[4..].to_uppercase());
        assert_eq!(vault.token_hash(&upper.parse().unwrap()), hash);
    }

    #[test]
    fn what_is_not_a_token_is_refused() {
        let digits = "0".repeat(64);
        for text in
            ["", "phm_", "phm_zz", &digits, &format!("phm_{digits}0"), &format!("PHM_{digits}")]
        {
            assert!(text.parse::<PhantomToken>().is_err(), "{text}");
        }
    }

    #[test]
    fn neither_a_token_nor_its_hash_prints() {
        let token = PhantomToken::random();
        let text = token.reveal();
        let printed =
            format!("{token:?}{:?}", Vault::new(&Vault::random_master_key()).token_hash(&token));
        assert!(!printed.contains(&text.expose()[4..12]));
    }
}
