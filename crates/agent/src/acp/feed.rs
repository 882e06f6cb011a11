//! The numbered events of one server: kept first, then told.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::Stream;
use serde_json::json;
use tokio::sync::{Mutex as AsyncMutex, watch};

use super::envelope::Envelope;
use super::journal::{Journal, NewEvent};
use crate::events::Frame;
use crate::wire::now_ms;

/// The newest events are at hand: so many, of so many bytes. Whoever is further behind reads the journal.
const AT_HAND: usize = 1024;
const AT_HAND_BYTES: usize = 1024 * 1024;

/// Events that a reader is given at once.
const PAGE: usize = 128;
const PAGE_BYTES: usize = 256 * 1024;

/// An event to tell.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) session: Option<String>,
    pub(super) text: String,
}

impl Told {
    pub(super) fn of(envelope: &Envelope) -> Self {
        Self { session: envelope.session(), text: envelope.text() }
    }
}

/// The events of a server. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Feed {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    journal: Journal,
    key: i64,
    /// Held while events are being kept: they are told in the order of their numbers.
    last: AsyncMutex<Last>,
    recent: Mutex<Recent>,
    state: watch::Sender<State>,
}

#[derive(Debug)]
struct Last {
    number: u64,
    sent: u64,
    /// What clients asked, to be kept with what comes next, their answers at the latest.
    asked: Vec<NewEvent>,
}

#[derive(Debug, Default)]
struct Recent {
    events: VecDeque<(u64, Arc<str>)>,
    bytes: usize,
}

/// How far a feed is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    latest: u64,
    /// How often what speaks here has ended. A reader's stream ends with it.
    endings: u64,
    over: bool,
}

impl Feed {
    pub(super) fn new(journal: Journal, key: i64, (number, sent): (u64, u64)) -> Self {
        let inner = Inner {
            journal,
            key,
            last: AsyncMutex::new(Last { number, sent, asked: Vec::new() }),
            recent: Mutex::default(),
            state: watch::Sender::new(State { latest: sent, endings: 0, over: false }),
        };
        Self { inner: Arc::new(inner) }
    }

    pub(super) fn latest(&self) -> u64 {
        self.inner.state.borrow().latest
    }

    /// How many read it at the moment.
    pub(super) fn readers(&self) -> usize {
        self.inner.state.receiver_count()
    }

    /// Keeps events of the agent, then tells them. If they cannot be kept they are told all the same:
    /// a full disk must not make an agent mute.
    pub(super) async fn tell(&self, told: Vec<Told>) {
        if told.is_empty() {
            return;
        }
        let mut last = self.inner.last.lock().await;
        let (at_ms, first) = (now_ms(), last.sent + 1);
        let texts: Vec<Arc<str>> = told.iter().map(|told| Arc::from(told.text.as_str())).collect();
        let mut events = std::mem::take(&mut last.asked);
        events.extend(told.into_iter().map(|told| {
            last.number += 1;
            last.sent += 1;
            let (number, sent) = (last.number, Some(last.sent));
            NewEvent { number, sent, at_ms, session: told.session, payload: told.text }
        }));
        if let Err(error) = self.inner.journal.append(self.inner.key, events).await {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "events of an agent are not kept"
            );
        }
        self.recent().add(first, texts);
        self.inner.state.send_modify(|state| state.latest = last.sent);
    }

    /// Notes what a client sent; it is not told to anybody. It is kept with what comes next, or by [`Feed::keep`].
    pub(super) async fn note(&self, session: Option<String>, payload: String) {
        let mut last = self.inner.last.lock().await;
        last.number += 1;
        let number = last.number;
        last.asked.push(NewEvent { number, sent: None, at_ms: now_ms(), session, payload });
        let bytes: usize = last.asked.iter().map(|event| event.payload.len()).sum();
        if bytes > AT_HAND_BYTES {
            self.keep_all(&mut last).await;
        }
    }

    async fn keep_all(&self, last: &mut Last) {
        let asked = std::mem::take(&mut last.asked);
        if asked.is_empty() {
            return;
        }
        if let Err(error) = self.inner.journal.append(self.inner.key, asked).await {
            // A full disk: what the agent answers is still an answer.
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "what a client sent is not kept"
            );
        }
    }

    /// Keeps what was noted, if it is not kept yet. To be called before a client is told that it was taken.
    pub(super) async fn keep(&self) {
        let mut last = self.inner.last.lock().await;
        self.keep_all(&mut last).await;
    }

    /// What speaks here has ended: streams that are open now end once they have told all.
    pub(super) fn end_streams(&self) {
        self.inner.state.send_modify(|state| state.endings += 1);
    }

    /// The server is gone.
    pub(super) fn close(&self) {
        self.inner.state.send_modify(|state| state.over = true);
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.inner.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Events after one, each once, in order, at the reader's pace.
    pub(super) fn frames(&self, after: u64) -> impl Stream<Item = Vec<Frame>> + Send + use<> {
        let watching = self.inner.state.subscribe();
        let (endings, latest) = (watching.borrow().endings, watching.borrow().latest);
        // A number that was never given: those that the reader knows are of a server before this one.
        let anew = (after > latest).then(|| {
            let text = "numbers began anew: what follows is from the beginning";
            vec![Frame::of("gap", &json!({ "from": latest + 1, "to": after, "message": text }))]
        });
        let after = if anew.is_some() { 0 } else { after };
        let reader = Reader { feed: self.clone(), after, watching, endings };
        futures_util::stream::unfold((reader, anew), |(mut reader, anew)| async {
            let frames = match anew {
                Some(anew) => anew,
                None => reader.next().await?,
            };
            Some((frames, (reader, None)))
        })
    }
}

struct Reader {
    feed: Feed,
    after: u64,
    watching: watch::Receiver<State>,
    endings: u64,
}

impl Reader {
    async fn next(&mut self) -> Option<Vec<Frame>> {
        loop {
            let state = *self.watching.borrow_and_update();
            if self.after < state.latest {
                return Some(self.page(state.latest).await);
            }
            if state.over || state.endings != self.endings {
                return None;
            }
            self.watching.changed().await.ok()?;
        }
    }

    async fn page(&mut self, latest: u64) -> Vec<Frame> {
        let at_hand = self.feed.recent().after(self.after);
        if let Some(events) = at_hand {
            self.after = events.last().map_or(self.after, |(number, _)| *number);
            return events
                .iter()
                .map(|(number, text)| Frame::numbered("message", *number, text))
                .collect();
        }
        let inner = &self.feed.inner;
        let events = inner.journal.sent_after(inner.key, self.after, (PAGE, PAGE_BYTES)).await;
        let events = events.unwrap_or_else(|error| {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "events of an agent cannot be read"
            );
            Vec::new()
        });
        let mut frames = Vec::new();
        // Nothing there: all up to what is at hand was never kept, or is not kept any more.
        let next = events.first().map_or_else(
            || self.feed.recent().first().unwrap_or(latest + 1),
            |(number, _)| *number,
        );
        if next > self.after + 1 {
            frames.push(Frame::of("gap", &json!({ "from": self.after + 1, "to": next - 1 })));
            self.after = next - 1;
        }
        for (number, text) in events {
            // A hole in the middle is told, too.
            if number > self.after + 1 {
                frames.push(Frame::of("gap", &json!({ "from": self.after + 1, "to": number - 1 })));
            }
            frames.push(Frame::numbered("message", number, &text));
            self.after = number;
        }
        frames
    }
}

impl Recent {
    fn add(&mut self, first: u64, texts: Vec<Arc<str>>) {
        for (number, text) in (first..).zip(texts) {
            self.bytes += text.len();
            self.events.push_back((number, text));
        }
        while self.events.len() > AT_HAND || self.bytes > AT_HAND_BYTES {
            let Some((_, text)) = self.events.pop_front() else { break };
            self.bytes -= text.len();
        }
    }

    fn first(&self) -> Option<u64> {
        self.events.front().map(|(number, _)| *number)
    }

    /// The next events after one, if it is at hand.
    fn after(&self, after: u64) -> Option<Vec<(u64, Arc<str>)>> {
        let first = self.first()?;
        let skip = usize::try_from((after + 1).checked_sub(first)?).ok()?;
        let (mut bytes, mut page) = (0, Vec::new());
        for (number, text) in self.events.iter().skip(skip).take(PAGE) {
            bytes += text.len();
            page.push((*number, Arc::clone(text)));
            if bytes > PAGE_BYTES {
                break;
            }
        }
        (!page.is_empty()).then_some(page)
    }
}
