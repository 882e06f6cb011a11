//! Copying between two streams until both directions have ended.

use std::io;

use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional_with_sizes};

/// One direction's buffer.
const BUFFER_BYTES: usize = 32 * 1024;

/// Copies both ways. When one side stops sending, the other is told, and may go on sending.
pub async fn relay(
    mut left: impl AsyncRead + AsyncWrite + Unpin,
    mut right: impl AsyncRead + AsyncWrite + Unpin,
) -> io::Result<()> {
    copy_bidirectional_with_sizes(&mut left, &mut right, BUFFER_BYTES, BUFFER_BYTES).await?;
    Ok(())
}
