//! Bodies that a thread produces, as fast as the client takes them.

use std::io::{self, BufWriter, Write};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

/// Bytes of a piece, and pieces that may wait for a slow client.
const PIECE: usize = 64 * 1024;
const QUEUE: usize = 4;

/// How long a client may take none. A thread waits for it.
const STALL: Duration = Duration::from_secs(60);

/// A body that `produce` writes. If it fails, the connection breaks: a client must not take half of it for
/// the whole.
pub fn body<E>(produce: impl FnOnce(&mut dyn Write) -> Result<(), E> + Send + 'static) -> Body
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
        match (produced, flushed) {
            (Ok(()), Ok(())) => {}
            _ if gone => {}
            (Ok(()), Err(error)) => broken(&sender, &error),
            (Err(error), _) => broken(&sender, &error),
        }
    }));
    Body::from_stream(pieces)
}

/// The client must not take half of it for the whole. If it takes nothing at all, it hears by the end.
fn broken(sender: &mpsc::Sender<io::Result<Bytes>>, error: &(dyn std::error::Error + 'static)) {
    tracing::error!(error, "a body broke off");
    drop(sender.try_send(Err(io::Error::other("broken off"))));
}

struct Pieces(mpsc::Sender<io::Result<Bytes>>);

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = Bytes::copy_from_slice(bytes);
        let sent = Handle::current().block_on(self.0.send_timeout(Ok(piece), STALL));
        sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
