//! A jail's connection to one of its listeners.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;

/// A jail's connection, and its place among those the jail may have. Whoever holds the connection,
/// also after an upgrade, holds the place.
#[derive(Debug)]
pub(crate) struct Client {
    stream: TcpStream,
    _place: OwnedSemaphorePermit,
}

impl AsyncRead for Client {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Client {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl Client {
    pub(crate) fn new(stream: TcpStream, place: OwnedSemaphorePermit) -> Self {
        Self { stream, _place: place }
    }

    /// The address that was dialled.
    pub(crate) fn destination(&self) -> io::Result<SocketAddr> {
        self.stream.local_addr()
    }

    /// Makes the end of it a reset, as from a host that refuses.
    pub(crate) fn end_by_reset(&self) {
        // Without it the client sees an orderly end, which is no worse.
        drop(self.stream.set_zero_linger());
    }
}
