//! The task that owns an agent: it carries lines both ways, and ends all there is when one side ends.

use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::output::take;
use super::{Answer, Exit, Queued, Shared};
use crate::acp::envelope::Envelope;
use crate::acp::feed::{Feed, Told};
use crate::acp::lines::{Line, Lines};
use crate::acp::sessions::Tracker;
use crate::processes::{Ended, Spawned};

/// Lines of standard error that are kept, and bytes of one.
const STDERR_LINES: usize = 16;
const STDERR_BYTES: usize = 2000;

/// How long an agent has to end by itself, and how long after SIGTERM.
const AFTER_EOF: Duration = Duration::from_millis(300);
const AFTER_TERM: Duration = Duration::from_millis(700);

/// The task that owns an agent.
pub(super) struct Owner {
    pub(super) spawned: Spawned,
    pub(super) shared: Arc<Shared>,
    pub(super) feed: Feed,
    pub(super) tracker: Tracker,
    pub(super) ending: CancellationToken,
    pub(super) ended: CancellationToken,
    pub(super) alone: bool,
}

impl Owner {
    pub(super) async fn own(
        mut self,
        to: pipe::Sender,
        queued: mpsc::Receiver<Queued>,
        from: pipe::Receiver,
        errors: pipe::Receiver,
    ) {
        let closing = CancellationToken::new();
        let write = closing.run_until_cancelled(write(to, queued));
        let (shared, feed, tracker) = (&self.shared, &self.feed, &self.tracker);
        let read = async {
            let mut lines = Lines::new(from);
            while let Some(some) = lines.next().await {
                take(shared, feed, tracker, some).await;
            }
        };
        let complain = async {
            let mut lines = Lines::new(errors);
            while let Some(some) = lines.next().await {
                remember(shared, some);
            }
        };
        let life = async {
            let ended = tokio::select! {
                ended = self.spawned.wait() => ended,
                () = self.ending.cancelled() => {
                    closing.cancel();
                    end(&mut self.spawned).await
                }
            };
            closing.cancel();
            ended
        };
        let output = async { tokio::join!(read, complain) };
        let (_, (), ended) = tokio::join!(write, async {}, async {
            let mut output = std::pin::pin!(output);
            let mut life = std::pin::pin!(life);
            tokio::select! {
                ended = &mut life => {
                    // What it said last is told before its end. What it left behind may hold the pipe.
                    drop(timeout(AFTER_EOF, &mut output).await);
                    ended
                }
                _ = &mut output => life.await,
            }
        });
        let ended = ended.unwrap_or(Ended { code: None, signal: None });
        self.spawned.end_strays().await;
        self.tell_the_end(ended).await;
    }

    async fn tell_the_end(&self, ended: Ended) {
        let waiting = {
            let mut state = self.shared.state();
            let code = ended.code.or_else(|| ended.signal.map(|signal| 128 + signal));
            state.exit = Some(Exit { code, stderr: state.stderr_text() });
            state.asked.clear();
            std::mem::take(&mut state.pending)
        };
        let params = json!({ "success": ended.code == Some(0), "code": ended.code });
        let told = Told::of(&Envelope::notification("_adapter/agent_exited", &params));
        self.feed.tell(vec![told]).await;
        self.ended.cancel();
        let exit = self.shared.state().exit.clone().unwrap_or_default();
        for pending in waiting.into_values() {
            drop(pending.tell.send(Answer::Exited(exit.clone())));
        }
        if self.alone {
            self.feed.end_streams();
        }
    }
}

async fn end(spawned: &mut Spawned) -> std::io::Result<Ended> {
    for (signal, patience) in [(None, AFTER_EOF), (Some(Signal::TERM), AFTER_TERM)] {
        if let Some(signal) = signal {
            spawned.signal(signal);
        }
        if let Ok(ended) = timeout(patience, spawned.wait()).await {
            return ended;
        }
    }
    spawned.signal(Signal::KILL);
    spawned.wait().await
}

async fn write(mut to: pipe::Sender, mut queued: mpsc::Receiver<Queued>) {
    while let Some((bytes, _room)) = queued.recv().await {
        if to.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

fn remember(shared: &Shared, lines: Vec<Line>) {
    let mut state = shared.state();
    for line in lines {
        let text = match line {
            Line::Text(text) => {
                let text = String::from_utf8_lossy(&text).into_owned();
                text.chars().take(STDERR_BYTES).collect()
            }
            Line::TooLong(bytes) => format!("(a line of {bytes} bytes)"),
        };
        state.stderr.push_back(text);
        if state.stderr.len() > STDERR_LINES {
            state.stderr.pop_front();
        }
    }
}
