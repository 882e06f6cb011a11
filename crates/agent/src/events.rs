//! Server-sent events: frames, and responses that are made of them.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use serde::Serialize;
use tokio::time::timeout;

use crate::problem::Problem;

/// How long a stream is silent before a comment says that it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// One event, as it goes over the wire.
#[derive(Debug, Clone)]
pub(crate) struct Frame(String);

impl Frame {
    /// An event with JSON in it.
    pub(crate) fn of(name: &str, data: &impl Serialize) -> Self {
        let data = serde_json::to_string(data).unwrap_or_else(|_| "null".to_owned());
        Self(format!("event: {name}\ndata: {data}\n\n"))
    }

    /// The same with an id by which a client resumes. `data` has no line break in it.
    pub(crate) fn numbered(name: &str, id: u64, data: &str) -> Self {
        let mut text = String::with_capacity(data.len() + 48);
        let _ = write!(text, "event: {name}\nid: {id}\ndata: {data}\n\n");
        Self(text)
    }
}

/// Where a client wants to go on, by the header that says so.
pub(crate) fn last_id(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let Some(value) = headers.get("last-event-id") else { return Ok(None) };
    match value.to_str().map(str::trim) {
        Ok("") => Ok(Some(0)),
        Ok(text) => text
            .parse()
            .map(Some)
            .map_err(|_| Problem::invalid("Last-Event-ID must be a positive integer")),
        Err(_) => Err(Problem::invalid("Last-Event-ID must be a positive integer")),
    }
}

/// Frames as they come, and comments while none do. The next are asked for when the client has taken these.
pub(crate) fn response(frames: impl Stream<Item = Vec<Frame>> + Send + 'static) -> Response {
    let stream = futures_util::stream::unfold(Box::pin(frames), |mut frames| async {
        let bytes = match timeout(KEEP_ALIVE, frames.next()).await {
            Ok(Some(frames)) => join(frames),
            Ok(None) => return None,
            Err(_) => Bytes::from_static(b": heartbeat\n\n"),
        };
        Some((Ok::<_, Infallible>(bytes), frames))
    });
    // A comment first: a client sees at once that it is connected.
    let hello = futures_util::stream::once(async { Ok(Bytes::from_static(b": ok\n\n")) });
    let headers = [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-cache")];
    (headers, Body::from_stream(hello.chain(stream))).into_response()
}

fn join(frames: Vec<Frame>) -> Bytes {
    let mut frames = frames.into_iter();
    let mut text = frames.next().map(|frame| frame.0).unwrap_or_default();
    for frame in frames {
        text.push_str(&frame.0);
    }
    text.into()
}
