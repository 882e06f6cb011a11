//! Counting and slowing what one jail sends and receives.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::passages::Passage;

/// Limits of one jail's traffic. `None` is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TrafficLimits {
    /// Connections open at once; at most, and by default, 256.
    pub connections: Option<usize>,
    /// Connections opened in any second.
    pub connections_per_second: Option<u32>,
    /// Sent and received together.
    pub bytes_per_second: Option<u64>,
    /// Sent and received together, over the life of the jail.
    pub bytes: Option<u64>,
}

/// What one jail has sent and received through its gate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    pub sent_bytes: u64,
    pub received_bytes: u64,
    pub connections: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Meter {
    limits: TrafficLimits,
    sent: AtomicU64,
    received: AtomicU64,
    connections: AtomicU64,
    /// When the bytes so far will have been paid for, at the allowed rate.
    paid: Mutex<Option<Instant>>,
    /// The running second, and connections opened in it.
    opened: Mutex<Option<(Instant, u32)>>,
}

impl Meter {
    pub(crate) fn new(limits: TrafficLimits) -> Self {
        Self { limits, ..Self::default() }
    }

    pub(crate) fn traffic(&self) -> Traffic {
        Traffic {
            sent_bytes: self.sent.load(Ordering::Relaxed),
            received_bytes: self.received.load(Ordering::Relaxed),
            connections: self.connections.load(Ordering::Relaxed),
        }
    }

    /// Counts a connection; false if they come too fast.
    pub(crate) fn may_open(&self) -> bool {
        if let Some(most) = self.limits.connections_per_second {
            let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let (since, count) = opened
                .filter(|(since, _)| now - *since < Duration::from_secs(1))
                .unwrap_or((now, 0));
            if count >= most {
                return false;
            }
            *opened = Some((since, count + 1));
        }
        self.connections.fetch_add(1, Ordering::Relaxed);
        true
    }

    #[cfg(fuzzing)]
    pub(crate) fn use_up(&self) {
        self.sent.store(u64::MAX / 2, Ordering::Relaxed);
    }

    pub(crate) fn is_used_up(&self) -> bool {
        let used = self.sent.load(Ordering::Relaxed) + self.received.load(Ordering::Relaxed);
        self.limits.bytes.is_some_and(|limit| used >= limit)
    }

    /// Counts bytes that were moved.
    fn pay(&self, counter: &AtomicU64, bytes: usize) {
        counter.fetch_add(bytes as u64, Ordering::Relaxed);
        let Some(rate) = self.limits.bytes_per_second else { return };
        let nanos = (bytes as u64).saturating_mul(1_000_000_000) / rate.max(1);
        let now = Instant::now();
        let mut paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
        let from = paid.filter(|until| *until > now).unwrap_or(now);
        *paid = Some(from + Duration::from_nanos(nanos));
    }

    /// Until when nothing more may be moved, on any connection of the jail.
    fn paid_until(&self) -> Option<Instant> {
        self.limits.bytes_per_second?;
        let paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
        paid.filter(|until| *until > Instant::now())
    }
}

/// A connection out, metered.
pub(crate) struct Metered<S> {
    stream: S,
    meter: Arc<Meter>,
    /// Of reading, and of writing.
    waits: [Option<Pin<Box<Sleep>>>; 2],
    /// Ends both, when policy does not allow the connection any more.
    cut: Pin<Box<dyn Future<Output = ()> + Send>>,
    passage: Passage,
}

impl<S: std::fmt::Debug> std::fmt::Debug for Metered<S> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Metered").field("stream", &self.stream).finish_non_exhaustive()
    }
}

impl<S> Metered<S> {
    pub(crate) fn new(stream: S, meter: Arc<Meter>, passage: Passage) -> Self {
        let cut = Box::pin(passage.is_cut());
        Self { stream, meter, waits: [None, None], cut, passage }
    }

    /// Completes when policy does not allow the connection any more.
    pub(crate) fn is_cut(&self) -> impl Future<Output = ()> + Send + use<S> {
        self.passage.is_cut()
    }

    /// Waits until what was moved before is paid for.
    fn poll_wait(&mut self, which: usize, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.cut.as_mut().poll(context).is_ready() {
            let why = "policy does not allow this connection any more";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, why)));
        }
        // Others of the same jail may have moved something while this one waited.
        while let Some(until) = self.meter.paid_until() {
            let wait = self.waits[which].get_or_insert_with(|| Box::pin(sleep_until(until)));
            ready!(wait.as_mut().poll(context));
            self.waits[which] = None;
        }
        if self.meter.is_used_up() {
            return Poll::Ready(Err(io::Error::other("the jail has used up its bytes")));
        }
        Poll::Ready(Ok(()))
    }

    fn pay(&self, which: usize, bytes: usize) {
        let counter = if which == READING { &self.meter.received } else { &self.meter.sent };
        self.meter.pay(counter, bytes);
    }
}

const READING: usize = 0;
const WRITING: usize = 1;

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_wait(READING, context))?;
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        let read = buffer.filled().len() - before;
        self.pay(READING, read);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_wait(WRITING, context))?;
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, bytes))?;
        self.pay(WRITING, written);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    async fn through(limits: TrafficLimits, bytes: usize) -> (io::Result<usize>, Traffic) {
        let (near, mut far) = duplex(1 << 20);
        let meter = Arc::new(Meter::new(limits));
        let target = crate::gate::Target::Address([203, 0, 113, 1].into());
        let passage = crate::passages::Passages::default().open(&target, 443);
        let mut metered = Metered::new(near, Arc::clone(&meter), passage);
        far.write_all(&vec![0; bytes]).await.unwrap();
        drop(far);
        let mut all = Vec::new();
        let read = metered.read_to_end(&mut all).await;
        (read, meter.traffic())
    }

    #[tokio::test]
    async fn bytes_are_counted_and_end_at_the_limit() {
        let (read, traffic) = through(TrafficLimits::default(), 5000).await;
        assert_eq!((read.unwrap(), traffic.received_bytes), (5000, 5000));
        let limits = TrafficLimits { bytes: Some(1000), ..TrafficLimits::default() };
        assert!(through(limits, 100_000).await.0.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_is_kept() {
        let limits = TrafficLimits { bytes_per_second: Some(1000), ..TrafficLimits::default() };
        let began = Instant::now();
        through(limits, 5000).await.0.unwrap();
        let took = began.elapsed().as_secs_f64();
        // What is read at once is paid for by who reads next.
        assert!((4.0..5.3).contains(&took), "{took}");
    }

    #[tokio::test(start_paused = true)]
    async fn connections_come_no_faster_than_they_may() {
        let limits = TrafficLimits { connections_per_second: Some(2), ..TrafficLimits::default() };
        let meter = Meter::new(limits);
        assert_eq!([(); 3].map(|()| meter.may_open()), [true, true, false]);
        tokio::time::advance(Duration::from_millis(1100)).await;
        assert!(meter.may_open());
    }
}
