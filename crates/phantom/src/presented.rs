//! Finding the phantom token in a request, wherever clients put a key.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use hyper::header::{AUTHORIZATION, HeaderMap, HeaderName};
use secret::PhantomToken;

use crate::provider::Injection;

/// Clients differ on whether they pad.
const STANDARD_PADDED_OR_NOT: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// The token, from `Authorization` (bare, `Bearer`, `token`, or either part of `Basic`), then
/// `x-api-key`, then the header that the service itself takes its key in.
pub(crate) fn token(headers: &HeaderMap, injection: Option<&Injection>) -> Option<PhantomToken> {
    if let Some(token) = single(headers, &AUTHORIZATION).and_then(from_authorization) {
        return Some(token);
    }
    if let Some(token) = single(headers, &X_API_KEY).and_then(plain) {
        return Some(token);
    }
    match injection {
        Some(Injection::Header(own)) => single(headers, own).and_then(plain),
        Some(Injection::Bearer | Injection::Basic { .. }) | None => None,
    }
}

/// A header's value, if there is exactly one: of two, we might check one and the upstream the other.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value.trim())
}

fn from_authorization(value: &str) -> Option<PhantomToken> {
    let Some((scheme, rest)) = value.split_once(' ') else { return plain(value) };
    match scheme.to_ascii_lowercase().as_str() {
        "bearer" | "token" => plain(rest),
        "basic" => from_basic(rest.trim()),
        _ => None,
    }
}

/// git sends the token as the password, Stripe's clients as the user.
fn from_basic(encoded: &str) -> Option<PhantomToken> {
    let decoded = String::from_utf8(STANDARD_PADDED_OR_NOT.decode(encoded).ok()?).ok()?;
    let (user, password) = decoded.split_once(':')?;
    plain(password).or_else(|| plain(user))
}

fn plain(text: &str) -> Option<PhantomToken> {
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    fn found(headers: &[(&str, String)]) -> bool {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap());
        }
        token(&map, Some(&Injection::Header("x-goog-api-key".parse().unwrap()))).is_some()
    }

    #[test]
    fn a_token_is_found_where_clients_put_it_and_nowhere_else() {
        let token = format!("phm_{}", "0123456789abcdef".repeat(4));
        for value in [
            token.clone(),
            format!("Bearer {token}"),
            format!("bearer  {token}"),
            format!("token {token}"),
        ] {
            assert!(found(&[("authorization", value.clone())]), "{value}");
        }
        assert!(found(&[("x-api-key", token.clone())]));
        assert!(found(&[("x-goog-api-key", token.clone())]));
        assert!(found(&[
            ("authorization", "Bearer sk-not-ours".into()),
            ("x-api-key", token.clone())
        ]));
        assert!(!found(&[("cookie", token.clone())]));
        assert!(!found(&[("authorization", format!("Digest {token}"))]));
        assert!(!found(&[("authorization", format!("{token}0"))]));
        assert!(!found(&[("authorization", token.clone()), ("authorization", token)]));
    }

    #[test]
    fn basic_credentials_hold_it_on_either_side() {
        let digits = "0123456789abcdef".repeat(4);
        for plain in [format!("x-access-token:phm_{digits}"), format!("phm_{digits}:")] {
            let encoded = STANDARD_PADDED_OR_NOT.encode(plain);
            assert!(found(&[("authorization", format!("Basic {encoded}"))]));
            let bare = encoded.trim_end_matches('=');
            assert!(found(&[("authorization", format!("Basic {bare}"))]));
        }
        assert!(!found(&[("authorization", "Basic !!!".to_owned())]));
    }
}
