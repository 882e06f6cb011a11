//! A log as JSON, and as events.

use std::io::{self, Write};
use std::sync::Arc;

use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::Stream as Frames;
use httpkit::produced;
use serde_json::json;
use tokio::sync::watch;

use super::log::{Bounds, Cursor, Entry, Log, Read, Stream};
use super::owner::State;
use super::service::Process;
use super::wire::{LogEntry, LogsQuery, StreamName};
use crate::blocking::blocking;
use crate::events::Frame;

/// Bytes of entries that are read at once.
const PIECE: usize = 128 * 1024;

/// Which entries are wanted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    stream: StreamName,
    since: u64,
    tail: Option<u64>,
}

impl Wanted {
    pub(super) fn of(query: &LogsQuery, tty: bool, resumed: Option<u64>) -> Self {
        let stream =
            query.stream.unwrap_or(if tty { StreamName::Pty } else { StreamName::Combined });
        Self { stream, since: resumed.or(query.since).unwrap_or(0), tail: query.tail }
    }

    fn takes(self, entry: &Entry) -> bool {
        match self.stream {
            StreamName::Combined => true,
            StreamName::Stdout => entry.stream == Stream::Stdout,
            StreamName::Stderr => entry.stream == Stream::Stderr,
            StreamName::Pty => entry.stream == Stream::Pty,
        }
    }

    /// Where to begin: after `since`, or so far from the end that `tail` entries follow.
    fn begin(self, log: &Log, end: Cursor) -> io::Result<Cursor> {
        let from = log.after(self.since)?;
        let Some(tail) = self.tail else { return Ok(from) };
        let mut count = 0_u64;
        each(log, from, end, &mut |entry| {
            count += u64::from(self.takes(entry));
            Ok(())
        })?;
        let mut skip = count.saturating_sub(tail);
        let (mut place, mut last) = (from, from.sequence);
        if skip > 0 || tail == 0 {
            each(log, from, end, &mut |entry| {
                if skip > 0 || tail == 0 {
                    skip -= u64::from(self.takes(entry) && skip > 0);
                    last = entry.sequence;
                }
                Ok(())
            })?;
            place = log.after(last)?;
        }
        Ok(place)
    }
}

/// Calls for each entry between two places that is still kept.
fn each(
    log: &Log,
    from: Cursor,
    end: Cursor,
    with: &mut dyn FnMut(&Entry) -> io::Result<()>,
) -> io::Result<()> {
    let mut cursor = from;
    while cursor.sequence < end.sequence {
        let read = log.read(cursor, PIECE)?;
        for entry in read.entries.iter().filter(|entry| entry.sequence < end.sequence) {
            with(entry)?;
        }
        cursor = read.next;
    }
    Ok(())
}

/// The log as it is now, entry by entry.
pub(super) fn body(process: Arc<Process>, wanted: Wanted) -> Body {
    produced::body(move |out| write(&process, wanted, out))
}

fn write(process: &Process, wanted: Wanted, out: &mut dyn Write) -> io::Result<()> {
    let log = &process.handle.log;
    let end = log.bounds().end;
    write!(out, r#"{{"processId":"{}","stream":"#, process.id())?;
    serde_json::to_writer(&mut *out, &wanted.stream)?;
    out.write_all(br#","entries":["#)?;
    let mut first = true;
    each(log, wanted.begin(log, end)?, end, &mut |entry| {
        if !wanted.takes(entry) {
            return Ok(());
        }
        if !std::mem::take(&mut first) {
            out.write_all(b",")?;
        }
        Ok(serde_json::to_writer(&mut *out, &told(entry))?)
    })?;
    out.write_all(b"]}")
}

fn told(entry: &Entry) -> LogEntry {
    LogEntry {
        sequence: entry.sequence,
        stream: entry.stream.name(),
        timestamp_ms: entry.timestamp_ms,
        data: STANDARD.encode(&entry.data),
        encoding: "base64",
    }
}

/// A place in a log that moves on, and what is needed to know when.
#[derive(Debug)]
pub(super) struct Follower {
    process: Arc<Process>,
    cursor: Cursor,
    bounds: watch::Receiver<Bounds>,
    state: watch::Receiver<State>,
    ended: bool,
}

/// What a follower hears.
pub(super) enum Heard {
    Entries(Read),
    Exited { code: Option<i32>, signal: Option<i32> },
}

impl Follower {
    pub(super) fn at(process: Arc<Process>, cursor: Cursor) -> Self {
        let (bounds, state) = (process.handle.log.watch(), process.handle.state.clone());
        Self { process, cursor, bounds, state, ended: false }
    }

    /// The next entries, or the end. `None` after it, and when the process is forgotten.
    pub(super) async fn next(&mut self) -> Option<Heard> {
        if self.ended {
            return None;
        }
        loop {
            // Whether it has ended is looked at first: what was written before is in the log by then.
            let state = *self.state.borrow_and_update();
            let bounds = *self.bounds.borrow_and_update();
            if self.cursor.sequence < bounds.end.sequence {
                let (log, from) = (Arc::clone(&self.process.handle.log), self.cursor);
                return match blocking(move || log.read(from, PIECE)).await {
                    Ok(read) => {
                        self.cursor = read.next;
                        Some(Heard::Entries(read))
                    }
                    Err(error) => {
                        tracing::error!(%error, "a log could not be read");
                        None
                    }
                };
            }
            if let State::Exited { ended, .. } = state {
                self.ended = true;
                return Some(Heard::Exited { code: ended.code, signal: ended.signal });
            }
            tokio::select! {
                changed = self.bounds.changed() => changed.ok()?,
                changed = self.state.changed() => changed.ok()?,
            }
        }
    }
}

/// History, then what comes: nothing between them is lost or told twice.
pub(super) async fn follow(
    process: Arc<Process>,
    wanted: Wanted,
) -> io::Result<impl Frames<Item = Vec<Frame>> + Send> {
    let log = Arc::clone(&process.handle.log);
    let cursor = blocking(move || wanted.begin(&log, log.bounds().end)).await?;
    let follower = Follower::at(process, cursor);
    Ok(futures_util::stream::unfold(follower, move |mut follower| async move {
        let frames = match follower.next().await? {
            Heard::Entries(read) => frames(&read, wanted),
            Heard::Exited { code, signal } => {
                vec![Frame::of("exit", &json!({ "exitCode": code, "signal": signal }))]
            }
        };
        Some((frames, follower))
    }))
}

fn frames(read: &Read, wanted: Wanted) -> Vec<Frame> {
    let gap = read.gap.map(|(from, to)| Frame::of("gap", &json!({ "from": from, "to": to })));
    let entries = read.entries.iter().filter(|entry| wanted.takes(entry)).map(|entry| {
        let data = serde_json::to_string(&told(entry)).unwrap_or_default();
        Frame::numbered("log", entry.sequence, &data)
    });
    gap.into_iter().chain(entries).collect()
}
