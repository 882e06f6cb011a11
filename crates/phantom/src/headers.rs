//! Which headers pass, and where the key goes in.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, FORWARDED, HOST, HeaderMap,
    HeaderName, HeaderValue, InvalidHeaderValue, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE,
    TRAILER, TRANSFER_ENCODING, UPGRADE, VIA,
};
use mutation::{Protection, keeps};
use secret::Secret;

use crate::provider::{Injection, Provider};

/// Headers that speak of one connection, not of the message. Framing (`Content-Length`,
/// `Transfer-Encoding`) is set anew from the body that is really sent.
const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// What a client says of itself and the upstream must not hear: its own keys, and where it is.
const NOT_FORWARDED: [HeaderName; 12] = [
    AUTHORIZATION,
    HeaderName::from_static("x-api-key"),
    HOST,
    COOKIE,
    CONTENT_LENGTH,
    EXPECT,
    FORWARDED,
    VIA,
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-forwarded-proto"),
    HeaderName::from_static("x-real-ip"),
];

const ANTHROPIC_VERSION: HeaderName = HeaderName::from_static("anthropic-version");

/// Makes a client's headers the upstream's: strips, then puts the key in.
///
/// In this order: were the key put in first, `Connection: x-api-key` would take it out again.
pub(crate) fn prepare_request(
    headers: &mut HeaderMap,
    provider: &Provider,
    key: &Secret,
) -> Result<(), InvalidHeaderValue> {
    if keeps(Protection::HopByHop) {
        strip_hop_by_hop(headers);
    }
    for name in &NOT_FORWARDED {
        headers.remove(name);
    }
    let mut inject = |name: HeaderName, value: String| {
        let mut value = HeaderValue::from_str(&value)?;
        // Not printed by anything that prints headers, nor kept in a compression table.
        value.set_sensitive(true);
        headers.insert(name, value);
        Ok(())
    };
    match &provider.injection {
        Injection::Bearer => inject(AUTHORIZATION, format!("Bearer {}", key.expose()))?,
        Injection::Header(name) => inject(name.clone(), key.expose().to_owned())?,
        Injection::Basic { user } => {
            let both = STANDARD.encode(format!("{user}:{}", key.expose()));
            inject(AUTHORIZATION, format!("Basic {both}"))?;
        }
    }
    if provider.service.as_str() == "anthropic" && !headers.contains_key(ANTHROPIC_VERSION) {
        headers.insert(ANTHROPIC_VERSION, HeaderValue::from_static("2023-06-01"));
    }
    if !keeps(Protection::HopByHop) {
        strip_hop_by_hop(headers);
    }
    Ok(())
}

/// Removes what speaks of one connection only, by name and by `Connection`'s own list. That cannot name what
/// says how long the message is, or whose.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let listed: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .filter(|name| *name != CONTENT_LENGTH && *name != HOST)
        .collect();
    for name in listed.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

/// Whether a client asks to go on in WebSocket.
pub(crate) fn asks_for_websocket(headers: &HeaderMap) -> bool {
    let says = |name: HeaderName, word: &str| {
        headers
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .any(|value| value.split(',').any(|item| item.trim().eq_ignore_ascii_case(word)))
    };
    says(CONNECTION, "upgrade") && says(UPGRADE, "websocket")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::Providers;

    fn prepared(service: &str, headers: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_static(value));
        }
        let providers = Providers::default();
        let key = Secret::new("sk-real".into());
        prepare_request(&mut map, providers.get(service).unwrap(), &key).unwrap();
        map
    }

    #[test]
    fn the_clients_key_goes_and_ours_comes() {
        let sent = prepared("openai", &[("authorization", "Bearer phm_x"), ("x-api-key", "phm_x")]);
        assert_eq!(sent["authorization"], "Bearer sk-real");
        assert!(!sent.contains_key("x-api-key"));
        let sent = prepared("anthropic", &[("authorization", "Bearer phm_x")]);
        assert_eq!(sent["x-api-key"], "sk-real");
        assert_eq!(sent["anthropic-version"], "2023-06-01");
        assert!(!sent.contains_key("authorization"));
        let sent = prepared("anthropic", &[("anthropic-version", "2099-01-01")]);
        assert_eq!(sent["anthropic-version"], "2099-01-01");
    }

    #[test]
    fn a_client_cannot_have_our_key_removed_or_framing_changed() {
        let sent = prepared(
            "anthropic",
            &[
                ("connection", "x-api-key, close, x-note"),
                ("x-note", "1"),
                ("transfer-encoding", "chunked"),
                ("content-length", "5"),
                ("cookie", "a=b"),
                ("x-forwarded-for", "10.0.0.1"),
                ("accept", "*/*"),
            ],
        );
        assert_eq!(sent["x-api-key"], "sk-real");
        let names: Vec<_> = sent.keys().map(HeaderName::as_str).collect();
        assert_eq!(names.len(), 3, "{names:?}");
        assert!(sent.contains_key("accept"));
    }

    #[test]
    fn a_key_is_marked_sensitive() {
        assert!(!format!("{:?}", prepared("openai", &[])).contains("sk-real"));
    }

    #[test]
    fn websocket_is_recognised_as_clients_write_it() {
        let asks = |connection: &'static str, upgrade: &'static str| {
            let mut map = HeaderMap::new();
            map.insert(CONNECTION, HeaderValue::from_static(connection));
            map.insert(UPGRADE, HeaderValue::from_static(upgrade));
            asks_for_websocket(&map)
        };
        assert!(asks("Upgrade", "websocket") && asks("keep-alive, Upgrade", "WebSocket"));
        assert!(!asks("close", "websocket") && !asks("Upgrade", "h2c"));
    }
}
