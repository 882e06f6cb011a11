//! A forwarded exchange while it lasts: counts what passes, is written down however it ends, and ends
//! when its grant does.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use jiff::Timestamp;
use store::{NewAuditRow, Transfer};
use tokio::sync::OnceCell;
use tokio::time::Sleep;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::journal::Entry;
use crate::serve::Shared;
use crate::upstream::broken;

/// What has passed so far, and when something last did.
#[derive(Debug)]
pub(crate) struct Progress {
    began: Instant,
    /// Milliseconds from `began`.
    last: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
}

impl Progress {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            last: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
        }
    }

    /// Bytes went up.
    pub(crate) fn sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
        self.heard();
    }

    /// Bytes came down.
    pub(crate) fn received(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
        self.heard();
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn heard(&self) {
        self.last.store(self.elapsed_ms(), Ordering::Relaxed);
    }

    /// How long nothing has passed.
    fn silence(&self) -> Duration {
        let since = self.elapsed_ms().saturating_sub(self.last.load(Ordering::Relaxed));
        Duration::from_millis(since)
    }
}

/// An exchange that goes on. However it ends, by an answer, a refusal or a client that hangs up,
/// there is an audit row for it.
#[derive(Debug)]
pub(crate) struct Exchange {
    shared: Arc<Shared>,
    row: NewAuditRow,
    entry: OnceCell<Entry>,
    progress: Arc<Progress>,
    /// Cancelled when the exchange is over.
    alive: CancellationToken,
}

impl Exchange {
    /// `row` is what is written down if nothing is ever decided.
    pub(crate) fn new(shared: Arc<Shared>, row: NewAuditRow) -> Self {
        Self {
            shared,
            row,
            entry: OnceCell::new(),
            progress: Arc::new(Progress::new()),
            alive: CancellationToken::new(),
        }
    }

    pub(crate) fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.progress)
    }

    pub(crate) fn alive(&self) -> CancellationToken {
        self.alive.clone()
    }

    /// Writes down how it was decided.
    pub(crate) async fn decided(&self, status: u16, reject_reason: Option<&'static str>) {
        let mut row = self.row.clone();
        row.status = status;
        row.reject_reason = reject_reason;
        row.upstream_ms = Some(self.progress.elapsed_ms());
        self.entry.get_or_init(|| self.shared.journal.begin(row)).await;
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.alive.cancel();
        let transfer = Transfer {
            request_bytes: self.progress.sent.load(Ordering::Relaxed),
            response_bytes: self.progress.received.load(Ordering::Relaxed),
            ended_at: Timestamp::now(),
        };
        if let Some(entry) = self.entry.get() {
            entry.end(transfer);
            return;
        }
        // Nothing can wait in a drop: a task of the proxy's writes the row.
        let mut row = self.row.clone();
        row.reject_reason = Some("client_gone");
        row.upstream_ms = Some(self.progress.elapsed_ms());
        let shared = Arc::clone(&self.shared);
        self.shared.spawn_lasting(async move {
            shared.journal.begin(row).await.end(transfer);
        });
    }
}

/// What must not happen for an exchange to go on.
#[derive(Debug)]
pub(crate) struct Leash {
    withdrawn: [Pin<Box<WaitForCancellationFutureOwned>>; 2],
    expiry: Option<Pin<Box<Sleep>>>,
    progress: Arc<Progress>,
    silence: Pin<Box<Sleep>>,
    patience: Duration,
}

impl Leash {
    pub(crate) fn new(
        withdrawn: [&CancellationToken; 2],
        left: Option<Duration>,
        progress: Arc<Progress>,
        patience: Duration,
    ) -> Self {
        progress.heard();
        Self {
            withdrawn: withdrawn.map(|token| Box::pin(token.clone().cancelled_owned())),
            expiry: left.map(|left| Box::pin(tokio::time::sleep(left))),
            progress,
            silence: Box::pin(tokio::time::sleep(patience)),
            patience,
        }
    }

    /// Why the exchange must end now, if it must.
    pub(crate) fn poll_pulled(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        let withdrawn =
            self.withdrawn.iter_mut().any(|token| token.as_mut().poll(context).is_ready());
        let expired = |end: &mut Pin<Box<Sleep>>| end.as_mut().poll(context).is_ready();
        if withdrawn || self.expiry.as_mut().is_some_and(expired) {
            return Poll::Ready(io::Error::other("the phantom token was revoked"));
        }
        while self.silence.as_mut().poll(context).is_ready() {
            // Something may have passed since the clock was set: then it runs for the rest.
            let left = self.patience.saturating_sub(self.progress.silence());
            if left.is_zero() {
                return Poll::Ready(io::ErrorKind::TimedOut.into());
            }
            self.silence.as_mut().reset(tokio::time::Instant::now() + left);
        }
        Poll::Pending
    }
}

/// A client's body on its way up.
#[derive(Debug)]
pub(crate) struct RequestBody {
    inner: Incoming,
    progress: Arc<Progress>,
}

impl RequestBody {
    pub(crate) fn new(inner: Incoming, progress: Arc<Progress>) -> Self {
        Self { inner, progress }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            self.progress.sent(frame.data_ref().map_or(0, Bytes::remaining));
        }
        polled.map(|frame| frame.map(|frame| frame.map_err(broken)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// An upstream's body on its way down.
///
/// The leash is pulled by the task that owns the client's connection ([`crate::serve`]), since a
/// body is only asked for more when its client reads; here it only must live as long.
#[derive(Debug)]
pub(crate) struct ResponseBody {
    inner: Incoming,
    exchange: Exchange,
    leash: Leash,
}

impl ResponseBody {
    pub(crate) fn new(inner: Incoming, exchange: Exchange, leash: Leash) -> Self {
        Self { inner, exchange, leash }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = &mut *self;
        let polled = Pin::new(&mut this.inner).poll_frame(context);
        // Asked whatever the upstream does: a stream that never pauses must end, too.
        if let Poll::Ready(error) = this.leash.poll_pulled(context) {
            return Poll::Ready(Some(Err(error)));
        }
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            this.exchange.progress.received(frame.data_ref().map_or(0, Bytes::remaining));
        }
        polled.map(|frame| frame.map(|frame| frame.map_err(broken)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
