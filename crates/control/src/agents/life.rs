//! An agent that is up: who asks it for something, and whether it does anything.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::header::{AUTHORIZATION, HeaderValue};
use axum::http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use secret::Secret;
use serde_json::Value;
use tokio::time::{sleep, timeout};

use super::access::AgentKey;
use super::door::{self, HttpClient};
use super::error::AgentError;
use crate::exec::Asker;

/// How long one that runs may take to say whether it works.
const SOON: Duration = Duration::from_secs(5);

/// How often one that owes an answer is asked whether it is there.
const ASKED_AGAIN: Duration = Duration::from_secs(15);

/// So often in a row it may not say so, before it counts as one that does nothing.
const SILENCES: u32 = 3;

/// The most that such an answer is read of.
const ANSWER_BYTES: usize = 1 << 20;

/// An agent that runs, or stands still.
#[derive(Debug)]
pub(crate) struct Life {
    pub(super) key: AgentKey,
    /// Of the token that clients open it with.
    pub(super) token_hash: Vec<u8>,
    pub(super) jail: i64,
    asker: Asker,
    pub(super) client: HttpClient,
    /// What the agent itself wants to hear; no client knows it.
    token: Secret,
    uses: Mutex<Uses>,
}

#[derive(Debug)]
struct Uses {
    /// Requests that are not at their end.
    open: usize,
    last: Instant,
    /// Nobody enters, because it is about to be paused.
    closed: bool,
    /// How often in a row it did not say whether it works.
    silent: u32,
    /// Whether its end was asked for.
    ending: bool,
}

/// That somebody is asking. Dropped with the end of the answer.
#[derive(Debug)]
pub(crate) struct Use(Arc<Life>);

impl Use {
    /// For what goes on beside the answer.
    pub(super) fn share(&self) -> Self {
        self.0.uses().open += 1;
        Self(Arc::clone(&self.0))
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        let mut uses = self.0.uses();
        uses.open -= 1;
        uses.last = Instant::now();
    }
}

impl Life {
    /// One that was just started in a jail.
    pub(super) fn new(
        key: AgentKey,
        token_hash: Vec<u8>,
        jail: i64,
        asker: Asker,
        token: Secret,
    ) -> Self {
        let client = door::client(asker.clone());
        let uses = Uses { open: 0, last: Instant::now(), closed: false, silent: 0, ending: false };
        Self { key, token_hash, jail, asker, client, token, uses: Mutex::new(uses) }
    }

    /// As the agent wants to be asked.
    pub(super) fn authorization(&self) -> Option<HeaderValue> {
        let mut value = HeaderValue::from_str(&format!("Bearer {}", self.token.expose())).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// Says that somebody asks; `None` if it stands still, or has ended.
    pub(super) fn enter(self: &Arc<Self>) -> Option<Use> {
        let mut uses = self.uses();
        if uses.closed || self.stands_still() || self.has_ended() {
            return None;
        }
        uses.open += 1;
        Some(Use(Arc::clone(self)))
    }

    /// Whether it stands still, and the snapshot is taken.
    pub(super) fn is_paused(&self) -> bool {
        let closed = self.uses().closed;
        !closed && self.stands_still()
    }

    pub(super) fn stands_still(&self) -> bool {
        self.asker.stands_still()
    }

    pub(super) fn has_ended(&self) -> bool {
        self.asker.has_ended()
    }

    /// Lets it go on.
    pub(super) async fn resume(&self) -> Result<(), AgentError> {
        Ok(self.asker.resume().await?)
    }

    /// Whether its end was asked for.
    pub(super) fn is_ending(&self) -> bool {
        self.uses().ending
    }

    /// Ends it, with all that runs in its jail.
    pub(super) async fn end(&self) {
        self.uses().ending = true;
        self.asker.kill();
        self.asker.ended().await;
    }

    /// From here on nobody enters. `since`: only if nobody has for so long; gives whether it is so.
    pub(super) fn close(&self, since: Option<Duration>) -> bool {
        let mut uses = self.uses();
        let unused = |since| uses.open == 0 && uses.last.elapsed() >= since;
        uses.closed = since.is_none_or(unused);
        uses.closed
    }

    pub(super) fn open_again(&self) {
        let mut uses = self.uses();
        uses.closed = false;
        uses.last = Instant::now();
    }

    fn uses(&self) -> MutexGuard<'_, Uses> {
        self.uses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the agent for something small.
    pub(super) async fn ask(&self, path: &str) -> Option<(StatusCode, Value)> {
        let request = Request::get(format!("http://127.0.0.1:{}{path}", door::PORT))
            .header(AUTHORIZATION, self.authorization()?)
            .body(Body::empty());
        let response = self.client.request(request.ok()?).await.ok()?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES).collect().await.ok()?;
        Some((status, serde_json::from_slice(&body.to_bytes()).unwrap_or_default()))
    }

    /// Completes if it hangs: not while it works at something, be that for hours.
    pub(super) async fn unresponsive(&self) {
        let mut silent = 0;
        while silent < SILENCES {
            sleep(ASKED_AGAIN).await;
            // One that stands still is not asked: that would let it go on.
            let answers = self.stands_still()
                || matches!(timeout(SOON, self.ask("/v1/health")).await, Ok(Some(_)));
            silent = if answers { 0 } else { silent + 1 };
        }
    }

    /// Whether a coding agent of it owes an answer, for all one knows.
    pub(super) async fn works(&self) -> bool {
        match timeout(SOON, self.ask("/v1/acp")).await {
            Ok(Some((StatusCode::OK, answer))) => {
                self.uses().silent = 0;
                let servers = answer["servers"].as_array();
                servers.into_iter().flatten().any(|server| server["busy"] == true)
            }
            _ => {
                let mut uses = self.uses();
                uses.silent += 1;
                uses.silent < SILENCES
            }
        }
    }
}
