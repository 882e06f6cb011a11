//! What is left of a request's body when its answer is already known.
//!
//! A client that is still sending hears a reset, and not the answer, if the connection is closed over what
//! it sends. So the rest is read and thrown away, beside the answer.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::http::HeaderMap;
use axum::http::header::EXPECT;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// How long a rest is read, and how long its client may be silent meanwhile.
const ALL: Duration = Duration::from_secs(30);
const SILENCE: Duration = Duration::from_secs(5);

/// A request's body. Its rest is handed over when whoever should read it does not.
#[derive(Debug)]
pub(crate) struct Lingering {
    inner: Option<Incoming>,
    rests: Rests,
    /// The client waits to be asked for it: one that is not asked sends nothing.
    waits: bool,
}

/// Where a connection's rests go.
#[derive(Debug, Clone)]
pub struct Rests(mpsc::Sender<Incoming>);

/// Where they arrive.
#[derive(Debug)]
pub struct Left(mpsc::Receiver<Incoming>);

/// One connection's way for rests. A connection has one body at a time.
pub fn channel() -> (Rests, Left) {
    let (rests, left) = mpsc::channel(1);
    (Rests(rests), Left(left))
}

impl Rests {
    /// Has a body read that nobody has begun to read.
    pub fn take(&self, body: Incoming, headers: &HeaderMap) {
        drop(Lingering::new(body, headers, self));
    }
}

impl Lingering {
    pub(crate) fn new(inner: Incoming, headers: &HeaderMap, rests: &Rests) -> Self {
        Self { inner: Some(inner), rests: rests.clone(), waits: headers.contains_key(EXPECT) }
    }
}

impl Body for Lingering {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.waits = false;
        let Some(inner) = &mut self.inner else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(inner).poll_frame(context));
        if !matches!(frame, Some(Ok(_))) {
            self.inner = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), Incoming::size_hint)
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        let rest = self.inner.take().filter(|inner| !self.waits && !inner.is_end_stream());
        if let Some(rest) = rest {
            // Nobody reads it if the connection has gone.
            drop(self.rests.0.try_send(rest));
        }
    }
}

/// Reads rests as they come. Never completes.
pub async fn read_out(mut left: Left) -> std::convert::Infallible {
    while let Some(mut rest) = left.0.recv().await {
        let read = async { while let Ok(Some(Ok(_))) = timeout(SILENCE, rest.frame()).await {} };
        // Beyond that it is dropped, and with it the connection.
        drop(timeout(ALL, read).await);
    }
    std::future::pending().await
}
