//! A forwarded exchange while it lasts: counts what passes, ends when its grant does.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use jiff::Timestamp;
use store::Transfer;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::journal::Entry;
use crate::upstream::broken;

/// Counts of one exchange; whoever drops them last writes them down.
#[derive(Debug)]
pub(crate) struct Exchange {
    entry: Entry,
    request_bytes: Arc<AtomicU64>,
    response_bytes: AtomicU64,
}

impl Exchange {
    pub(crate) fn new(entry: Entry, request_bytes: Arc<AtomicU64>) -> Self {
        Self { entry, request_bytes, response_bytes: AtomicU64::new(0) }
    }

    pub(crate) fn add_request(&self, bytes: usize) {
        self.request_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn add_response(&self, bytes: usize) {
        self.response_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.entry.end(Transfer {
            request_bytes: self.request_bytes.load(Ordering::Relaxed),
            response_bytes: self.response_bytes.load(Ordering::Relaxed),
            ended_at: Timestamp::now(),
        });
    }
}

/// What must not happen for an exchange to go on.
#[derive(Debug)]
pub(crate) struct Leash {
    session: Pin<Box<WaitForCancellationFutureOwned>>,
    key: Pin<Box<WaitForCancellationFutureOwned>>,
    expiry: Option<Pin<Box<Sleep>>>,
    silence: Pin<Box<Sleep>>,
    patience: Duration,
}

impl Leash {
    pub(crate) fn new(
        session: &CancellationToken,
        key: &CancellationToken,
        left: Option<Duration>,
        patience: Duration,
    ) -> Self {
        Self {
            session: Box::pin(session.clone().cancelled_owned()),
            key: Box::pin(key.clone().cancelled_owned()),
            expiry: left.map(|left| Box::pin(tokio::time::sleep(left))),
            silence: Box::pin(tokio::time::sleep(patience)),
            patience,
        }
    }

    /// Why the exchange must end now, if it must.
    pub(crate) fn poll_pulled(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        let revoked = self.session.as_mut().poll(context).is_ready()
            || self.key.as_mut().poll(context).is_ready()
            || self.expiry.as_mut().is_some_and(|expiry| expiry.as_mut().poll(context).is_ready());
        if revoked {
            return Poll::Ready(io::Error::other("the phantom token was revoked"));
        }
        self.silence.as_mut().poll(context).map(|()| io::ErrorKind::TimedOut.into())
    }

    /// Something passed: the silence begins anew.
    pub(crate) fn heard(&mut self) {
        self.silence.as_mut().reset(Instant::now() + self.patience);
    }
}

/// A client's body on its way up.
#[derive(Debug)]
pub(crate) struct RequestBody {
    inner: Incoming,
    sent: Arc<AtomicU64>,
}

impl RequestBody {
    pub(crate) fn new(inner: Incoming, sent: Arc<AtomicU64>) -> Self {
        Self { inner, sent }
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
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
        {
            self.sent.fetch_add(data.remaining() as u64, Ordering::Relaxed);
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
            this.exchange.add_response(frame.data_ref().map_or(0, Bytes::remaining));
            this.leash.heard();
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
