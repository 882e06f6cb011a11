//! A run as server-sent events.

use std::convert::Infallible;
use std::time::Duration;

use axum::response::sse::{Event as Frame, KeepAlive, Sse};
use futures_util::Stream;
use serde_json::json;
use tokio::sync::mpsc;

use crate::exec::{Event, ExecResult};

/// How long a stream is silent before a comment says that it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// The frames of a run. When the client goes, the receiver goes, and with it the jail.
pub(super) fn frames(
    events: mpsc::Receiver<Event>,
) -> Sse<impl Stream<Item = Result<Frame, Infallible>>> {
    let stream =
        futures_util::stream::unfold(Ahead { events, rest: Vec::new() }, |mut ahead| async {
            let frame = ahead.next().await?;
            Some((Ok(frame), ahead))
        });
    Sse::new(stream).keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
}

/// Events, and frames of the current one that are still to be sent, the next one last.
struct Ahead {
    events: mpsc::Receiver<Event>,
    rest: Vec<Frame>,
}

impl Ahead {
    async fn next(&mut self) -> Option<Frame> {
        if let Some(frame) = self.rest.pop() {
            return Some(frame);
        }
        match self.events.recv().await? {
            Event::Started { pid } => Some(data("started", &json!({ "pid": pid }))),
            Event::Stdout(line) => self.lines("stdout", &line),
            Event::Stderr(line) => self.lines("stderr", &line),
            Event::Stats(stats) => Some(data("stats", &json!(stats))),
            Event::Completed(result) => Some(data("completed", &completed(&result))),
        }
    }

    /// A carriage return would end an SSE line: what a progress bar draws over itself becomes one
    /// line a picture.
    fn lines(&mut self, name: &'static str, line: &str) -> Option<Frame> {
        let frame = |text: &str| Frame::default().event(name).data(text);
        self.rest = line.split('\r').rev().map(frame).collect();
        self.rest.pop()
    }
}

fn data(name: &'static str, value: &serde_json::Value) -> Frame {
    Frame::default().event(name).data(value.to_string())
}

fn completed(result: &ExecResult) -> serde_json::Value {
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
