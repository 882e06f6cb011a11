//! Request bodies and queries, whose errors name the field.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap};
use axum::http::request::Parts;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::DeserializeOwned;

use crate::error::{ApiError, Kind};

/// No request body is longer, unless its route says so.
pub const BODY_LIMIT: usize = 1024 * 1024;

/// How long a body may take to arrive.
const PATIENCE: Duration = Duration::from_secs(30);

/// A JSON body, of at most `LIMIT` bytes.
#[derive(Debug)]
pub struct Json<T, const LIMIT: usize = BODY_LIMIT>(pub T);

/// A JSON object read as two things at once: options that many requests share are a type of their
/// own, and an error still names the field.
#[derive(Debug)]
pub struct JsonPair<A, B>(pub A, pub B);

/// Parts of the path.
#[derive(Debug)]
pub struct Path<T>(pub T);

/// A query string.
#[derive(Debug)]
pub struct Query<T>(pub T);

impl<S: Sync, T: DeserializeOwned, const LIMIT: usize> FromRequest<S> for Json<T, LIMIT> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        Ok(Self(parse(&bytes(request, LIMIT).await?)?))
    }
}

impl<S: Sync, A: DeserializeOwned, B: DeserializeOwned> FromRequest<S> for JsonPair<A, B> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let bytes = bytes(request, BODY_LIMIT).await?;
        Ok(Self(parse(&bytes)?, parse(&bytes)?))
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let query = axum::extract::Query::<T>::from_request_parts(parts, state).await;
        query.map(|query| Self(query.0)).map_err(|rejection| {
            // The framework's own text is followed by the field and what is wrong with it.
            let text = rejection.body_text();
            let detail = text.strip_prefix("Failed to deserialize query string: ").unwrap_or(&text);
            ApiError::said(Kind::Invalid, format!("query: {detail}"))
        })
    }
}

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = axum::extract::Path::<T>::from_request_parts(parts, state).await;
        path.map(|path| Self(path.0))
            .map_err(|rejection| ApiError::said(Kind::Invalid, rejection.body_text()))
    }
}

async fn bytes(request: Request<Body>, limit: usize) -> Result<Vec<u8>, ApiError> {
    let too_large =
        || ApiError::said(Kind::TooLarge, format!("the body is longer than {limit} bytes"));
    if !is_json(request.headers()) {
        return Err(ApiError::said(
            Kind::UnsupportedMedia,
            "send the body as JSON, with `content-type: application/json`",
        ));
    }
    let declared = request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    if declared.and_then(|value| value.parse::<usize>().ok()).is_some_and(|n| n > limit) {
        discard(request.into_body(), limit).await;
        return Err(too_large());
    }
    let body = Limited::new(request.into_body(), limit).collect();
    let Ok(body) = tokio::time::timeout(PATIENCE, body).await else {
        return Err(ApiError::said(Kind::Timeout, "the body did not arrive in time"));
    };
    match body {
        Ok(body) => Ok(body.to_bytes().into()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large()),
        Err(_) => Err(ApiError::said(Kind::Invalid, "the body broke off")),
    }
}

/// Reads and forgets what a client is sending: one that is cut off in the middle often does not see the
/// answer. Within limits; one that goes on is cut off all the same.
async fn discard(body: Body, limit: usize) {
    let read = async {
        let mut body = Limited::new(body, limit.saturating_mul(16));
        while let Some(Ok(_)) = body.frame().await {}
    };
    drop(tokio::time::timeout(Duration::from_secs(5), read).await);
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"))
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    // A list would be read as the fields in their order: nobody means that.
    if bytes.trim_ascii_start().first() == Some(&b'[') {
        return Err(ApiError::said(Kind::Invalid, "the body is a list; an object is expected"));
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let detail = without_position(&error.inner().to_string());
        let text = match error.inner().classify() {
            serde_json::error::Category::Data if path == "." => detail,
            serde_json::error::Category::Data => format!("{path}: {detail}"),
            // More elements than were expected: the JSON is fine, what it says is not.
            _ if detail == "trailing characters" && path != "." => {
                format!("{path}: more elements than expected")
            }
            _ if bytes.is_empty() => "the body is empty; a JSON object is expected".to_owned(),
            _ => format!("the body is not JSON: {}", error.inner()),
        };
        ApiError::said(Kind::Invalid, text)
    })?;
    let rest = json.end().map_err(|_| "the body goes on after its JSON value");
    rest.map_err(|text| ApiError::said(Kind::Invalid, text))?;
    Ok(value)
}

/// Line and column say nothing to somebody whose client wrote the JSON.
fn without_position(detail: &str) -> String {
    detail.rsplit_once(" at line ").map_or(detail, |(text, _)| text).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only read")]
    struct Asked {
        services: Vec<String>,
        ttl_secs: Option<u64>,
    }

    fn complaint(body: &str) -> String {
        parse::<Asked>(body.as_bytes()).unwrap_err().text().to_owned()
    }

    #[test]
    fn a_wrong_body_is_told_by_field() {
        assert_eq!(complaint("{}"), "missing field `services`");
        assert_eq!(
            complaint(r#"{"services": [1]}"#),
            "services[0]: invalid type: integer `1`, expected a string"
        );
        assert!(
            complaint(r#"{"services": [], "ttl_secs": -1}"#).starts_with("ttl_secs: invalid value")
        );
        assert!(complaint("").contains("empty"));
        assert!(complaint("{").starts_with("the body is not JSON"));
        assert!(complaint(r#"{"services": []} x"#).contains("goes on"));
    }
}
