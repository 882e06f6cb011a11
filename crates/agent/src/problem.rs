//! What a caller is told when something cannot be done: a problem document, in the contract's words.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use httpkit::{ApiError, Kind};
use serde_json::{Map, Value, json};

/// What went wrong, as clients tell cases apart: the last part of `type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    InvalidRequest,
    UnsupportedAgent,
    TokenInvalid,
    PermissionDenied,
    NotFound,
    SessionNotFound,
    NoSuchRoute,
    MethodNotAllowed,
    NotAcceptable,
    Conflict,
    TooLarge,
    RangeNotSatisfiable,
    PreconditionFailed,
    UnsupportedMediaType,
    TooMany,
    AgentNotInstalled,
    InstallFailed,
    AgentProcessExited,
    ModeNotSupported,
    StreamError,
    Timeout,
    Internal,
}

impl Code {
    /// The word in `type`, the status, and the title.
    fn told(self) -> (&'static str, StatusCode, &'static str) {
        use StatusCode as S;
        match self {
            Self::InvalidRequest => ("invalid_request", S::BAD_REQUEST, "Invalid Request"),
            Self::UnsupportedAgent => ("unsupported_agent", S::BAD_REQUEST, "Unsupported Agent"),
            Self::TokenInvalid => ("token_invalid", S::UNAUTHORIZED, "Token Invalid"),
            Self::PermissionDenied => ("permission_denied", S::FORBIDDEN, "Permission Denied"),
            Self::NotFound => ("not_found", S::NOT_FOUND, "Not Found"),
            Self::SessionNotFound => ("session_not_found", S::NOT_FOUND, "Session Not Found"),
            Self::NoSuchRoute => ("invalid_request", S::NOT_FOUND, "Not Found"),
            Self::MethodNotAllowed => {
                ("invalid_request", S::METHOD_NOT_ALLOWED, "Method Not Allowed")
            }
            Self::NotAcceptable => ("not_acceptable", S::NOT_ACCEPTABLE, "Not Acceptable"),
            Self::Conflict => ("conflict", S::CONFLICT, "Conflict"),
            Self::TooLarge => ("invalid_request", S::PAYLOAD_TOO_LARGE, "Payload Too Large"),
            Self::RangeNotSatisfiable => {
                ("invalid_request", S::RANGE_NOT_SATISFIABLE, "Range Not Satisfiable")
            }
            Self::PreconditionFailed => ("conflict", S::PRECONDITION_FAILED, "Precondition Failed"),
            Self::UnsupportedMediaType => {
                ("unsupported_media_type", S::UNSUPPORTED_MEDIA_TYPE, "Unsupported Media Type")
            }
            Self::TooMany => ("conflict", S::TOO_MANY_REQUESTS, "Too Many Requests"),
            Self::AgentNotInstalled => ("agent_not_installed", S::NOT_FOUND, "Agent Not Installed"),
            Self::InstallFailed => ("install_failed", S::INTERNAL_SERVER_ERROR, "Install Failed"),
            Self::AgentProcessExited => {
                ("agent_process_exited", S::INTERNAL_SERVER_ERROR, "Agent Process Exited")
            }
            Self::ModeNotSupported => {
                ("mode_not_supported", S::NOT_IMPLEMENTED, "Mode Not Supported")
            }
            Self::StreamError => ("stream_error", S::BAD_GATEWAY, "Stream Error"),
            Self::Timeout => ("timeout", S::GATEWAY_TIMEOUT, "Timeout"),
            Self::Internal => ("stream_error", S::INTERNAL_SERVER_ERROR, "Stream Error"),
        }
    }
}

/// A problem on its way to the caller. What the caller must not read is its `cause`.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    code: Code,
    message: String,
    extra: Map<String, Value>,
    cause: Option<Arc<dyn Error + Send + Sync>>,
}

impl Problem {
    /// A problem told in words.
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        let (message, mut extra) = (message.into(), Map::new());
        let says_itself_again = matches!(
            code,
            Code::Conflict
                | Code::TokenInvalid
                | Code::PermissionDenied
                | Code::NotAcceptable
                | Code::UnsupportedMediaType
                | Code::StreamError
                | Code::Timeout
        );
        if says_itself_again {
            extra.insert("details".to_owned(), json!({ "message": message }));
        }
        Self { code, message, extra, cause: None }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidRequest, message)
    }

    pub(crate) fn conflict(message: impl Into<String>) -> Self {
        Self::new(Code::Conflict, message)
    }

    /// There is no `resource` of this id.
    pub(crate) fn not_found(resource: &str, id: &str) -> Self {
        Self::new(Code::NotFound, format!("{resource} {id}"))
            .with("details", json!({ "resource": resource, "id": id }))
    }

    pub(crate) fn session_not_found(id: &str) -> Self {
        Self::new(Code::SessionNotFound, id).with("sessionId", id)
    }

    pub(crate) fn unsupported_agent(id: &str) -> Self {
        Self::new(Code::UnsupportedAgent, format!("there is no agent {id}")).with("agent", id)
    }

    /// Ours to mend: the caller is not told more.
    pub(crate) fn internal(cause: impl Error + Send + Sync + 'static) -> Self {
        Self { cause: Some(Arc::new(cause)), ..Self::new(Code::Internal, "internal server error") }
    }

    /// A member beside the standard ones.
    pub(crate) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.extra.insert(name.to_owned(), value.into());
        self
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.code.told().1
    }

    /// For the log: the causes, if there are any.
    pub(crate) fn detail(&self) -> String {
        let mut detail = self.message.clone();
        let mut cause = self.cause.as_deref().map(|cause| cause as &dyn Error);
        while let Some(error) = cause {
            detail.push_str(": ");
            detail.push_str(&error.to_string());
            cause = error.source();
        }
        detail
    }

    pub(crate) fn is_ours(&self) -> bool {
        self.code == Code::Internal
    }

    /// The document.
    pub(crate) fn body(&self) -> Value {
        let (word, status, title) = self.code.told();
        let detail = match self.code {
            Code::NoSuchRoute => self.message.clone(),
            _ => format!("{}: {}", title.to_lowercase(), self.message),
        };
        let mut body = self.extra.clone();
        body.insert("type".to_owned(), format!("urn:sandbox-agent:error:{word}").into());
        body.insert("title".to_owned(), title.into());
        body.insert("status".to_owned(), status.as_u16().into());
        body.insert("detail".to_owned(), detail.into());
        Value::Object(body)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl Error for Problem {}

/// What the shared extractors complain of.
impl From<&ApiError> for Problem {
    fn from(error: &ApiError) -> Self {
        let code = match error.kind {
            Kind::Invalid => Code::InvalidRequest,
            Kind::Unauthorized => Code::TokenInvalid,
            Kind::NotFound => Code::NoSuchRoute,
            Kind::MethodNotAllowed => Code::MethodNotAllowed,
            Kind::Timeout => Code::Timeout,
            Kind::Conflict => Code::Conflict,
            Kind::TooLarge => Code::TooLarge,
            Kind::UnsupportedMedia => Code::UnsupportedMediaType,
            Kind::TooMany => Code::TooMany,
            Kind::BadGateway | Kind::Unavailable => Code::StreamError,
            Kind::Internal => Code::Internal,
        };
        Self::new(code, error.text())
    }
}

impl From<ApiError> for Problem {
    fn from(error: ApiError) -> Self {
        Self::from(&error)
    }
}

impl IntoResponse for Problem {
    /// Sends the status and carries the problem to the edge, which logs it and writes it out, once.
    fn into_response(self) -> Response {
        let mut response = self.status().into_response();
        response.extensions_mut().insert(Arc::new(self));
        response
    }
}
