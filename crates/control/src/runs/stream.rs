//! A run as server-sent events.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::exec::{Event, ExecResult};

/// How long a stream is silent before a comment says that it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// The frames of a run. When the client goes, the receiver goes, and with it the jail.
pub(crate) fn frames(events: mpsc::Receiver<Event>) -> Response {
    let stream = futures_util::stream::unfold(events, |mut events| async {
        let text = match timeout(KEEP_ALIVE, events.recv()).await {
            Ok(Some(event)) => frame(event),
            Ok(None) => return None,
            Err(_) => ": still running\n\n".to_owned(),
        };
        Some((Ok::<_, Infallible>(text), events))
    });
    let headers = [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-cache")];
    (headers, Body::from_stream(stream)).into_response()
}

fn frame(event: Event) -> String {
    match event {
        Event::Started { pid } => data("started", &json!({ "pid": pid }).to_string()),
        Event::Stdout(line) => lines("stdout", &line),
        Event::Stderr(line) => lines("stderr", &line),
        // Asked for by nobody who reads frames.
        Event::RawStdout(_) | Event::RawStderr(_) => String::new(),
        Event::Stats(stats) => data("stats", &json!(stats).to_string()),
        Event::Completed(result) => data("completed", &completed(&result).to_string()),
        Event::Failed { message } => data("error", &json!({ "message": message }).to_string()),
    }
}

/// A carriage return would end an SSE line: what a progress bar draws over itself becomes one line
/// a picture.
fn lines(name: &str, line: &str) -> String {
    line.split('\r').map(|picture| data(name, picture)).collect()
}

/// One event with one `data:` line, also when that is empty: without it there is no event. A reader
/// takes one space after the colon away, so one is put there.
fn data(name: &str, line: &str) -> String {
    format!("event: {name}\ndata: {line}\n\n")
}

pub(crate) fn completed(result: &ExecResult) -> serde_json::Value {
    let stats = result.stats.unwrap_or_default();
    json!({
        "exit_code": result.exit_code,
        "duration_ms": result.duration_ms,
        "timed_out": result.timed_out,
        "oom_killed": result.oom_killed,
        "memory_peak_bytes": stats.memory_peak_bytes,
        "memory_current_bytes": stats.memory_current_bytes,
        "cpu_usage_usec": stats.cpu_usage_usec,
        "pids_current": stats.pids_current,
        "signal": result.signal,
        "enforced": result.enforced,
    })
}
