//! Reading an agent's lines: bounded, whatever it prints.

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// The longest line that is taken. A longer one is told of, and skipped.
pub(super) const LONGEST: usize = 16 * 1024 * 1024;

/// Bytes that are read at once, and of lines that are given at once.
const CHUNK: usize = 64 * 1024;

/// A line, or what is in its place.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    Text(Bytes),
    /// It had so many bytes.
    TooLong(u64),
}

/// Lines of a stream, as many at a time as have arrived.
#[derive(Debug)]
pub(super) struct Lines<R> {
    from: R,
    buffer: BytesMut,
    /// Bytes of the buffer that are known to have no line end.
    searched: usize,
    /// Bytes of a line that is too long and not over yet.
    skipped: Option<u64>,
    longest: usize,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub(super) fn new(from: R) -> Self {
        Self::with_longest(from, LONGEST)
    }

    fn with_longest(from: R, longest: usize) -> Self {
        Self { from, buffer: BytesMut::new(), searched: 0, skipped: None, longest }
    }

    /// The next lines. `None` at the end; a last line without an end is a line.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost if this is dropped midway.
    pub(super) async fn next(&mut self) -> Option<Vec<Line>> {
        loop {
            let lines = self.take();
            if !lines.is_empty() {
                return Some(lines);
            }
            self.buffer.reserve(CHUNK);
            match self.from.read_buf(&mut self.buffer).await {
                Ok(0) | Err(_) => return self.last(),
                Ok(_) => {}
            }
        }
    }

    fn take(&mut self) -> Vec<Line> {
        let mut lines = Vec::new();
        while let Some(at) = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') {
            let line = self.buffer.split_to(self.searched + at + 1).freeze();
            self.searched = 0;
            let line = line.slice(..line.len() - 1);
            match self.skipped.take() {
                Some(skipped) => lines.push(Line::TooLong(skipped + line.len() as u64)),
                None if line.len() > self.longest => lines.push(Line::TooLong(line.len() as u64)),
                None if line.trim_ascii().is_empty() => {}
                None => lines.push(Line::Text(line)),
            }
        }
        self.searched = self.buffer.len();
        if self.searched > self.longest || (self.skipped.is_some() && self.searched > 0) {
            self.skipped = Some(self.skipped.unwrap_or(0) + self.searched as u64);
            self.buffer = BytesMut::new();
            self.searched = 0;
        }
        lines
    }

    fn last(&mut self) -> Option<Vec<Line>> {
        let rest = std::mem::take(&mut self.buffer).freeze();
        self.searched = 0;
        match self.skipped.take() {
            Some(skipped) => Some(vec![Line::TooLong(skipped + rest.len() as u64)]),
            None if rest.trim_ascii().is_empty() => None,
            None => Some(vec![Line::Text(rest)]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lines(text: &[u8]) -> Vec<Line> {
        let mut lines = Lines::with_longest(text, 8);
        let mut all = Vec::new();
        while let Some(some) = lines.next().await {
            all.extend(some);
        }
        all
    }

    #[tokio::test]
    async fn a_line_that_is_too_long_is_skipped_and_the_next_is_read() {
        let text = |text: &'static str| Line::Text(Bytes::from_static(text.as_bytes()));
        assert_eq!(lines(b"one\n\ntwo").await, [text("one"), text("two")]);
        assert_eq!(lines(b"123456789\nshort\n").await, [Line::TooLong(9), text("short")]);
        assert_eq!(lines(&vec![b'x'; 300_000]).await, [Line::TooLong(300_000)]);
    }
}
