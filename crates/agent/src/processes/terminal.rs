//! A terminal over a WebSocket: what it has shown, then what it shows, and what is typed.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{Message, WebSocket};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::log::{Cursor, Entry};
use super::logs::{Follower, Heard};
use super::service::{Process, Processes, decode};
use super::wire::TerminalSize;
use crate::blocking::blocking;

/// How long a viewer may take to hear that this is the end.
const LAST_WORD: Duration = Duration::from_secs(1);

/// What a viewer may send.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Sent {
    Input { data: String, encoding: Option<String> },
    Resize { cols: u16, rows: u16 },
    Close,
}

/// Serves one viewer until the process ends, the viewer goes, or the server stops.
pub(super) async fn serve(
    processes: Processes,
    process: Arc<Process>,
    since: u64,
    mut socket: WebSocket,
    stop: CancellationToken,
) {
    let viewed = stop.run_until_cancelled(view(&processes, &process, since, &mut socket)).await;
    drop(process);
    if viewed.is_none() {
        // Nobody to be told if it is gone already, and one that does not read need not be.
        drop(timeout(LAST_WORD, socket.send(Message::Close(None))).await);
    }
}

/// `None` when the viewer is gone.
async fn view(
    processes: &Processes,
    process: &Arc<Process>,
    since: u64,
    socket: &mut WebSocket,
) -> Option<()> {
    send(socket, &json!({ "type": "ready", "processId": process.id() })).await?;
    let mut follower = Follower::at(Arc::clone(process), start(process, since).await?);
    let mut shown = since;
    loop {
        tokio::select! {
            heard = follower.next() => match heard {
                Some(Heard::Entries(read)) => {
                    for entry in &read.entries {
                        show(socket, entry, &mut shown).await?;
                    }
                }
                Some(Heard::Exited { code, signal }) => {
                    let mut exit = json!({ "type": "exit", "exitCode": code });
                    if let Some(signal) = signal {
                        exit["signal"] = signal.into();
                    }
                    send(socket, &exit).await?;
                    return socket.send(Message::Close(None)).await.ok();
                }
                None => return socket.send(Message::Close(None)).await.ok(),
            },
            message = socket.recv() => match message {
                Some(Ok(message)) => take(processes, process, socket, message).await?,
                Some(Err(_)) | None => return None,
            },
        }
    }
}

/// The place from which on there is output that the viewer has not seen.
async fn start(process: &Arc<Process>, since: u64) -> Option<Cursor> {
    let log = Arc::clone(&process.handle.log);
    let found = blocking(move || {
        let mut cursor = log.bounds().oldest;
        while since > 0 && cursor.sequence < log.bounds().end.sequence {
            let read = log.read(cursor, 64 * 1024)?;
            let seen = read
                .entries
                .partition_point(|entry| entry.before + entry.data.len() as u64 <= since);
            if seen < read.entries.len() {
                return log.after(read.entries[seen].sequence - 1);
            }
            cursor = read.next;
        }
        Ok::<_, std::io::Error>(cursor)
    });
    found.await.ok()
}

async fn show(socket: &mut WebSocket, entry: &Entry, shown: &mut u64) -> Option<()> {
    let end = entry.before + entry.data.len() as u64;
    if end <= *shown {
        return Some(());
    }
    if entry.before > *shown {
        let lost = entry.before - *shown;
        let message = format!("{lost} bytes of earlier output are not kept any more");
        send(socket, &json!({ "type": "error", "message": message })).await?;
        *shown = entry.before;
    }
    let fresh = usize::try_from(*shown - entry.before).unwrap_or_default();
    *shown = end;
    socket.send(Message::Binary(entry.data.slice(fresh..))).await.ok()
}

async fn take(
    processes: &Processes,
    process: &Process,
    socket: &mut WebSocket,
    message: Message,
) -> Option<()> {
    let outcome = match message {
        Message::Text(text) => match serde_json::from_str::<Sent>(&text) {
            Ok(Sent::Input { data, encoding }) => {
                match decode(&data, encoding.as_deref().or(Some("text")), true) {
                    Ok(data) => processes.input(process, data, false).await.map(drop),
                    Err(error) => Err(error),
                }
            }
            Ok(Sent::Resize { cols, rows }) => {
                Processes::resize(process, TerminalSize { cols, rows })
            }
            Ok(Sent::Close) => {
                drop(socket.send(Message::Close(None)).await);
                return None;
            }
            Err(error) => {
                let message = format!("invalid terminal frame: {error}");
                return send(socket, &json!({ "type": "error", "message": message })).await;
            }
        },
        Message::Binary(data) => {
            processes.input(process, Bytes::copy_from_slice(&data), false).await.map(drop)
        }
        Message::Close(_) => return None,
        Message::Ping(_) | Message::Pong(_) => Ok(()),
    };
    match outcome {
        Ok(()) => Some(()),
        Err(error) => send(socket, &json!({ "type": "error", "message": error.to_string() })).await,
    }
}

async fn send(socket: &mut WebSocket, message: &serde_json::Value) -> Option<()> {
    socket.send(Message::Text(message.to_string().into())).await.ok()
}
