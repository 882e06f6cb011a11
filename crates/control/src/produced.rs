//! Bodies that a thread produces, as fast as the client takes them.

use std::io::{self, BufWriter, Write};

use axum::body::Body;
use bytes::Bytes;
use tokio::sync::mpsc;

/// Bytes of a piece, and pieces that may wait for a slow client.
const PIECE: usize = 64 * 1024;
const QUEUE: usize = 4;

/// A body that `produce` writes. If it fails, the connection breaks: a client must not take half of it for
/// the whole.
pub(crate) fn body<E>(
    produce: impl FnOnce(&mut dyn Write) -> Result<(), E> + Send + 'static,
) -> Body
where
    E: std::error::Error + Send + Sync + 'static,
{
    let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(QUEUE);
    let pieces = futures_util::stream::unfold(receiver, |mut receiver| async {
        Some((receiver.recv().await?, receiver))
    });
    // It ends when the body is dropped: the next piece finds nobody.
    drop(tokio::task::spawn_blocking(move || {
        let mut writer = BufWriter::with_capacity(PIECE, Pieces(sender.clone()));
        let produced = produce(&mut writer);
        let flushed = writer.flush();
        let gone = sender.is_closed();
        match produced {
            Err(error) if !gone => {
                tracing::error!(error = &error as &dyn std::error::Error, "a body broke off");
                drop(sender.blocking_send(Err(io::Error::other("broken off"))));
            }
            _ => drop(flushed),
        }
    }));
    Body::from_stream(pieces)
}

struct Pieces(mpsc::Sender<io::Result<Bytes>>);

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = Bytes::copy_from_slice(bytes);
        let sent = self.0.blocking_send(Ok(piece));
        sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
