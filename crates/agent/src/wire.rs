//! Small things of the wire that many routes share: lenient fields, and instants.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer};

/// `null` is taken for what is left out: some clients write all their fields.
pub(crate) fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// A yes or no in a query, as any client writes it.
pub(crate) fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    let text = String::deserialize(deserializer)?;
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" => Ok(true),
        "false" | "0" | "" => Ok(false),
        _ => Err(serde::de::Error::custom(format!("`{text}` is neither `true` nor `false`"))),
    }
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// An instant as RFC 3339 with nanoseconds, in UTC.
pub(crate) fn rfc3339(seconds: i64, nanos: i32) -> Option<String> {
    let instant = jiff::Timestamp::new(seconds, nanos).ok()?;
    let mut text = format!("{instant:.9}");
    text.truncate(text.len() - 1);
    text.push_str("+00:00");
    Some(text)
}

#[cfg(test)]
mod tests {
    #[test]
    fn an_instant_is_written_with_its_nanoseconds() {
        assert_eq!(super::rfc3339(1, 5).unwrap(), "1970-01-01T00:00:01.000000005+00:00");
        assert_eq!(
            super::rfc3339(-1, 999_999_999).as_deref(),
            Some("1969-12-31T23:59:59.999999999+00:00")
        );
    }
}
