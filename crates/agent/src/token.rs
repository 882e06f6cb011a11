//! The one secret that opens the API.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use subtle::ConstantTimeEq as _;

/// A token. It prints itself nowhere; [`Token::reveal`] is for the one place that tells it.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// A token that was given. `None` if it is empty: that would let in whoever sends none.
    pub fn given(text: &str) -> Option<Self> {
        (!text.is_empty()).then(|| Self(text.to_owned()))
    }

    /// A fresh one, of 192 random bits.
    ///
    /// # Errors
    ///
    /// If the kernel has no random bytes.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0_u8; 24];
        getrandom::fill(&mut bytes)?;
        Ok(Self(URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// The token in clear.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Takes the same time whatever is offered (of one length).
    pub(crate) fn is(&self, offered: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(offered).into()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[token]")
    }
}
