//! What a handler returns when it cannot do what was asked.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

/// Who must act, and with that the status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The caller: the request itself is wrong.
    Invalid,
    Unauthorized,
    NotFound,
    MethodNotAllowed,
    Timeout,
    Conflict,
    TooLarge,
    UnsupportedMedia,
    /// The caller, later.
    TooMany,
    /// Something behind us did not answer as it should.
    BadGateway,
    /// The server, for a while: it stops.
    Unavailable,
    /// The operator. The caller is not told the details.
    Internal,
}

impl Kind {
    pub fn status(self) -> StatusCode {
        match self {
            Self::Invalid => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::Timeout => StatusCode::REQUEST_TIMEOUT,
            Self::Conflict => StatusCode::CONFLICT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMedia => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooMany => StatusCode::TOO_MANY_REQUESTS,
            Self::BadGateway => StatusCode::BAD_GATEWAY,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// An error on its way to the edge, where it is logged and written out, once.
#[derive(Debug, Clone)]
pub struct ApiError {
    pub kind: Kind,
    text: String,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

impl ApiError {
    /// An error told by another: its text for the caller, its causes for the log.
    pub fn new(kind: Kind, error: impl Error + Send + Sync + 'static) -> Self {
        Self { kind, text: error.to_string(), source: Some(Arc::new(error)) }
    }

    /// An error told in words.
    pub fn said(kind: Kind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into(), source: None }
    }

    /// The operator's to mend.
    pub fn internal(error: impl Error + Send + Sync + 'static) -> Self {
        Self::new(Kind::Internal, error)
    }

    /// What the caller may read.
    pub fn text(&self) -> &str {
        if self.kind == Kind::Internal { "internal server error" } else { &self.text }
    }

    /// What the operator should read: the error with all its causes.
    pub fn detail(&self) -> String {
        let mut detail = self.text.clone();
        let mut cause = self.source.as_deref().and_then(|source| source.source());
        while let Some(error) = cause {
            detail.push_str(": ");
            detail.push_str(&error.to_string());
            cause = error.source();
        }
        detail
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.text())
    }
}

impl IntoResponse for ApiError {
    /// Sends the status and carries the error itself to the outermost layer. That layer logs it,
    /// once, with its whole chain of causes, and writes the body in its face's dialect.
    fn into_response(self) -> Response {
        let mut response = self.kind.status().into_response();
        response.extensions_mut().insert(Arc::new(self));
        response
    }
}
