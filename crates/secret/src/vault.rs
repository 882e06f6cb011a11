//! The master key: seals what goes to disk, and derives the keys of all keyed hashes.

use std::fmt;

use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::Secret;
use crate::phantom_token::{PhantomToken, TokenHash};

/// Length of a master key.
pub const MASTER_KEY_BYTES: usize = 32;

const NONCE_BYTES: usize = 24;

/// Why something sealed could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("sealed value is too short to be one")]
    TooShort,
    #[error("sealed value was made under another master key, for another place, or was changed")]
    Refused,
    #[error("sealed value is not UTF-8")]
    NotText,
}

/// Ciphertext with its nonce in front. Safe to write anywhere.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed(Vec<u8>);

impl Sealed {
    /// Reads back bytes that [`Sealed::as_bytes`] gave.
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The bytes to store.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "[sealed, {} bytes]", self.0.len())
    }
}

/// Holds the keys derived from the master key; the master key itself is forgotten.
pub struct Vault {
    cipher: XChaCha20Poly1305,
    token_key: Zeroizing<[u8; 32]>,
    fingerprint_key: Zeroizing<[u8; 32]>,
    api_key_key: Zeroizing<[u8; 32]>,
}

impl Vault {
    /// Derives every key the program needs from one master key.
    pub fn new(master: &Zeroizing<[u8; MASTER_KEY_BYTES]>) -> Self {
        let derive = |context: &str| Zeroizing::new(blake3::derive_key(context, master.as_ref()));
        let seal_key = derive("agentjail 2026-11 seal xchacha20poly1305");
        Self {
            cipher: XChaCha20Poly1305::new((&*seal_key).into()),
            token_key: derive("agentjail 2026-11 phantom token hash"),
            fingerprint_key: derive("agentjail 2026-11 credential fingerprint"),
            api_key_key: derive("agentjail 2026-11 api key comparison"),
        }
    }

    /// Makes a new random master key.
    ///
    /// # Panics
    ///
    /// If the kernel's random source fails.
    pub fn random_master_key() -> Zeroizing<[u8; MASTER_KEY_BYTES]> {
        let mut key = Zeroizing::new([0_u8; MASTER_KEY_BYTES]);
        getrandom::fill(key.as_mut()).expect("the kernel's random source answers");
        key
    }

    /// Encrypts `plain` so that it opens only under the same master key and for the same `place`
    /// (for instance `credential/acme/openai`): a row copied over another does not open.
    ///
    /// # Panics
    ///
    /// If `plain` is longer than the cipher allows (256 GiB) or the random source fails.
    pub fn seal(&self, place: &str, plain: &Secret) -> Sealed {
        let mut nonce = [0_u8; NONCE_BYTES];
        // 192 random bits: no counter to keep, no volume at which two nonces are likely to meet.
        getrandom::fill(&mut nonce).expect("the kernel's random source answers");
        let payload = Payload { msg: plain.expose().as_bytes(), aad: place.as_bytes() };
        let ciphertext = self
            .cipher
            .encrypt(&XNonce::from(nonce), payload)
            .expect("a key is shorter than the cipher's limit");
        Sealed([nonce.as_slice(), &ciphertext].concat())
    }

    /// Opens what [`Vault::seal`] made for the same place.
    pub fn open(&self, place: &str, sealed: &Sealed) -> Result<Secret, OpenError> {
        let (nonce, ciphertext) =
            sealed.0.split_first_chunk::<NONCE_BYTES>().ok_or(OpenError::TooShort)?;
        let payload = Payload { msg: ciphertext, aad: place.as_bytes() };
        let plain =
            self.cipher.decrypt(&XNonce::from(*nonce), payload).map_err(|_| OpenError::Refused)?;
        String::from_utf8(plain).map(Secret::new).map_err(|_| OpenError::NotText)
    }

    /// What is stored of a phantom token: enough to recognise it, not enough to use it.
    pub fn token_hash(&self, token: &PhantomToken) -> TokenHash {
        TokenHash(*blake3::keyed_hash(&self.token_key, token.as_bytes()).as_bytes())
    }

    /// A short mark by which people tell two secrets apart: 16 hex digits, the same for the same
    /// secret, useless for guessing it without the master key.
    pub fn fingerprint(&self, secret: &Secret) -> String {
        let hash = blake3::keyed_hash(&self.fingerprint_key, secret.expose().as_bytes());
        hash.to_hex()[..16].to_owned()
    }

    /// What is kept of an API key: enough to recognise it, not enough to use it.
    pub fn api_key_hash(&self, key: &str) -> Vec<u8> {
        blake3::keyed_hash(&self.api_key_key, key.as_bytes()).as_bytes().to_vec()
    }

    /// Whether two API keys are the same, in a time that tells nothing of where they differ.
    ///
    /// Both are hashed first, so that neither their length nor a common beginning shows.
    pub fn same_api_key(&self, presented: &str, kept: &Secret) -> bool {
        let hash = |text: &str| blake3::keyed_hash(&self.api_key_key, text.as_bytes());
        hash(presented).as_bytes().ct_eq(hash(kept.expose()).as_bytes()).into()
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[vault]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vault() -> Vault {
        Vault::new(&Vault::random_master_key())
    }

    fn secret() -> Secret {
        Secret::new("sk-real".to_owned())
    }

    #[test]
    fn what_is_sealed_opens_in_its_place() {
        let vault = vault();
        let sealed = vault.seal("credential/acme/openai", &secret());
        assert_eq!(vault.open("credential/acme/openai", &sealed).unwrap().expose(), "sk-real");
    }

    #[test]
    fn a_sealed_value_does_not_open_elsewhere_or_when_changed() {
        let vault = vault();
        let sealed = vault.seal("credential/acme/openai", &secret());
        assert!(vault.open("credential/globex/openai", &sealed).is_err());
        assert!(self::vault().open("credential/acme/openai", &sealed).is_err());
        for at in 0..sealed.as_bytes().len() {
            let mut bytes = sealed.as_bytes().to_vec();
            bytes[at] ^= 1;
            assert!(vault.open("credential/acme/openai", &Sealed::from_bytes(bytes)).is_err());
        }
        assert!(vault.open("x", &Sealed::from_bytes(vec![0; 23])).is_err());
    }

    #[test]
    fn the_key_is_not_in_the_sealed_bytes() {
        let sealed = vault().seal("x", &secret());
        assert!(!sealed.as_bytes().windows(7).any(|window| window == b"sk-real"));
    }

    #[test]
    fn fingerprints_tell_secrets_apart_and_depend_on_the_master_key() {
        let vault = vault();
        assert_eq!(vault.fingerprint(&secret()), vault.fingerprint(&secret()));
        assert_eq!(vault.fingerprint(&secret()).len(), 16);
        assert_ne!(vault.fingerprint(&secret()), vault.fingerprint(&Secret::new("other".into())));
        assert_ne!(vault.fingerprint(&secret()), self::vault().fingerprint(&secret()));
    }

    #[test]
    fn api_keys_are_compared_whole() {
        let vault = vault();
        assert!(vault.same_api_key("sk-real", &secret()));
        for other in ["", "sk-rea", "sk-real ", "sk-reaL"] {
            assert!(!vault.same_api_key(other, &secret()), "{other}");
        }
    }
}
