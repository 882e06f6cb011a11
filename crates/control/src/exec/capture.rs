//! Output in bounded memory: the beginning for the result, the end for the ledger, lines for a
//! stream.

use std::collections::VecDeque;

/// Bytes of each stream that the ledger keeps.
pub(crate) const TAIL_BYTES: usize = 16 * 1024;

/// A longer line is sent in pieces.
const LONGEST_LINE: usize = 64 * 1024;

/// The first bytes of a stream, up to a limit.
#[derive(Debug)]
pub(crate) struct Head {
    bytes: Vec<u8>,
    limit: usize,
    truncated: bool,
}

impl Head {
    pub(crate) fn new(limit: usize) -> Self {
        Self { bytes: Vec::new(), limit, truncated: false }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        let taken = bytes.len().min(self.limit - self.bytes.len());
        self.bytes.extend_from_slice(&bytes[..taken]);
        self.truncated |= taken < bytes.len();
    }

    /// The text, and whether there was more. Bytes that are not UTF-8 are replaced; a character that
    /// the limit cut in two is left out.
    pub(crate) fn into_text(mut self) -> (String, bool) {
        if self.truncated {
            self.bytes.truncate(whole_characters(&self.bytes));
        }
        let text = match String::from_utf8(self.bytes) {
            Ok(text) => text,
            Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
        };
        (text, self.truncated)
    }
}

/// The last bytes of a stream.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tail {
    bytes: VecDeque<u8>,
    truncated: bool,
}

impl Tail {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        let skipped = bytes.len().saturating_sub(TAIL_BYTES);
        let bytes = &bytes[skipped..];
        let excess = (self.bytes.len() + bytes.len()).saturating_sub(TAIL_BYTES);
        self.bytes.drain(..excess);
        self.bytes.extend(bytes);
        self.truncated |= skipped + excess > 0;
    }

    /// The text, from its first whole character.
    pub(crate) fn text(&self) -> String {
        let bytes: Vec<u8> = self.bytes.iter().copied().collect();
        let continues = |byte: &&u8| **byte & 0xc0 == 0x80;
        let start =
            if self.truncated { bytes.iter().take(3).take_while(continues).count() } else { 0 };
        String::from_utf8_lossy(&bytes[start..]).into_owned()
    }
}

/// Cuts a stream into lines.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    partial: Vec<u8>,
}

impl Lines {
    /// The lines that these bytes complete.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.partial.extend_from_slice(piece);
            while self.partial.len() > LONGEST_LINE {
                let mut at = whole_characters(&self.partial[..LONGEST_LINE]);
                at = if at == 0 { LONGEST_LINE } else { at };
                let rest = self.partial.split_off(at);
                let long = std::mem::replace(&mut self.partial, rest);
                lines.push(text(&long));
            }
            if piece.ends_with(b"\n") {
                lines.push(self.take());
            }
        }
        lines
    }

    /// The last line, if it had no end.
    pub(crate) fn finish(&mut self) -> Option<String> {
        (!self.partial.is_empty()).then(|| self.take())
    }

    fn take(&mut self) -> String {
        let line = std::mem::take(&mut self.partial);
        let line = line.strip_suffix(b"\n").unwrap_or(&line);
        text(line.strip_suffix(b"\r").unwrap_or(line))
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The length without a character that is cut at the end.
fn whole_characters(bytes: &[u8]) -> usize {
    let start = bytes.len().saturating_sub(3);
    for at in (start..bytes.len()).rev() {
        let needed = match bytes[at] {
            0xc0..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf7 => 4,
            0x80..=0xbf => continue,
            _ => return bytes.len(),
        };
        return if at + needed > bytes.len() { at } else { bytes.len() };
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_cut_character_is_left_out() {
        let mut head = Head::new(4);
        head.push("aéé".as_bytes());
        assert_eq!(head.into_text(), ("aé".to_owned(), true));
        let mut tail = Tail::default();
        tail.push("é".repeat(TAIL_BYTES).as_bytes());
        tail.push(b"x");
        assert!(tail.text().ends_with("éx") && !tail.text().contains('\u{fffd}'));
    }

    #[test]
    fn what_is_not_text_is_replaced() {
        let mut head = Head::new(100);
        head.push(b"a\xffb");
        assert_eq!(head.into_text(), ("a\u{fffd}b".to_owned(), false));
    }

    #[test]
    fn lines_come_whole_however_they_arrive() {
        let mut lines = Lines::default();
        assert_eq!(lines.push(b"ab"), Vec::<String>::new());
        assert_eq!(lines.push(b"c\r\n\n  d"), ["abc", ""]);
        assert_eq!(lines.finish().as_deref(), Some("  d"));
        assert_eq!(lines.finish(), None);
    }

    #[test]
    fn a_long_line_comes_in_pieces() {
        let mut lines = Lines::default();
        let long = "é".repeat(LONGEST_LINE);
        let mut got = lines.push(long.as_bytes());
        got.extend(lines.finish());
        assert!(got.len() >= 2 && got.concat() == long);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_between_chunks(chunks in proptest::collection::vec("[ab\n]{0,9}", 0..9)) {
            let whole = chunks.concat();
            let mut lines = Lines::default();
            let mut got: Vec<String> = chunks.iter().flat_map(|c| lines.push(c.as_bytes())).collect();
            got.extend(lines.finish());
            prop_assert_eq!(got, whole.lines().map(str::to_owned).collect::<Vec<_>>());
        }

        #[test]
        fn the_tail_is_the_end(chunks in proptest::collection::vec("[a-z]{0,9000}", 0..6)) {
            let whole = chunks.concat();
            let mut tail = Tail::default();
            for chunk in &chunks {
                tail.push(chunk.as_bytes());
            }
            prop_assert_eq!(tail.text(), &whole[whole.len().saturating_sub(TAIL_BYTES)..]);
        }
    }
}
