//! What a jailed program may say to the operator's terminal.

/// A line of text that somebody else chose, for a table: no control character passes.
pub(crate) fn sanitised(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Keeps a jailed program from talking to the operator's terminal: colours, cursor movement and
/// clearing pass; sequences that set the title or clipboard, or make the terminal answer, do not.
#[derive(Debug, Default)]
pub(crate) struct TerminalFilter {
    state: Escape,
    held: Vec<u8>,
    /// Bytes of a character that has begun, and how many are to come.
    character: Vec<u8>,
    to_come: usize,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Escape {
    #[default]
    Text,
    /// After ESC.
    Begun,
    /// ESC [ … : a control sequence.
    Control,
    /// A control sequence that does not pass, up to its end.
    Discarded,
    /// ESC ] P X ^ _ … : a string, dropped up to its end.
    String,
    /// ESC inside a string.
    StringEnd,
}

impl TerminalFilter {
    pub(crate) fn clean(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut clean = Vec::with_capacity(bytes.len());
        for &byte in bytes {
            self.step(byte, &mut clean);
        }
        clean
    }

    fn step(&mut self, byte: u8, clean: &mut Vec<u8>) {
        const ESC: u8 = 0x1b;
        const LONGEST_CONTROL: usize = 64;
        self.state = match (self.state, byte) {
            (Escape::Text, ESC) => Escape::Begun,
            (Escape::Text, b'\n' | b'\r' | b'\t' | 0x07 | 0x08 | b' '..=0x7e) => {
                self.to_come = 0;
                clean.push(byte);
                Escape::Text
            }
            (Escape::Text, 0x80..) => {
                self.beyond_ascii(byte, clean);
                Escape::Text
            }
            (Escape::Text, _) => Escape::Text,
            (Escape::Begun, b'[') => {
                self.held = vec![ESC, b'['];
                Escape::Control
            }
            (Escape::Begun, b']' | b'P' | b'X' | b'^' | b'_') => Escape::String,
            (Escape::Begun, ESC) => Escape::Begun,
            (Escape::Begun, _) => Escape::Text,
            // A private one (`<`, `=`, `>`, `?` first) sets modes, or makes the terminal answer.
            (Escape::Control, 0x3c..=0x3f) => Escape::Discarded,
            (Escape::Control, 0x20..=0x3b) if self.held.len() < LONGEST_CONTROL => {
                self.held.push(byte);
                Escape::Control
            }
            // The last byte says what it does: these draw, and ask nothing.
            (Escape::Control, b'A'..=b'H' | b'J' | b'K' | b'm') => {
                self.held.push(byte);
                clean.append(&mut self.held);
                Escape::Text
            }
            (Escape::Control | Escape::Discarded, 0x40..=0x7e) => Escape::Text,
            (Escape::Control | Escape::Discarded, ESC) => Escape::Begun,
            (Escape::Control | Escape::Discarded, _) => Escape::Discarded,
            (Escape::String, 0x07) | (Escape::StringEnd, b'\\') => Escape::Text,
            (Escape::String | Escape::StringEnd, ESC) => Escape::StringEnd,
            (Escape::String | Escape::StringEnd, _) => Escape::String,
        };
    }

    /// Passes whole UTF-8 characters. U+0080 to U+009F are control sequences in one character, and
    /// bytes that are no UTF-8 are to some terminals.
    fn beyond_ascii(&mut self, byte: u8, clean: &mut Vec<u8>) {
        if self.to_come == 0 {
            self.character.clear();
            self.to_come = match byte {
                0xc2..=0xdf => 1,
                0xe0..=0xef => 2,
                0xf0..=0xf4 => 3,
                _ => return,
            };
            self.character.push(byte);
            return;
        }
        self.character.push(byte);
        self.to_come -= 1;
        if self.to_come > 0 {
            return;
        }
        let whole = std::str::from_utf8(&self.character).ok().and_then(|text| text.chars().next());
        if whole.is_some_and(|character| !character.is_control()) {
            clean.append(&mut self.character);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_drawn_on_but_not_spoken_to() {
        let clean = |text: &str| {
            String::from_utf8(TerminalFilter::default().clean(text.as_bytes())).unwrap()
        };
        assert_eq!(
            clean("plain é\n\x1b[1;31mred\x1b[0m\x1b[2K\r"),
            "plain é\n\x1b[1;31mred\x1b[0m\x1b[2K\r"
        );
        assert_eq!(clean("a\x1b]52;c;c2VjcmV0\x07b"), "ab");
        assert_eq!(clean("a\x1b]0;title\x1b\\b"), "ab");
        assert_eq!(clean("a\x1bP$q\"p\x1b\\b"), "ab");
        assert_eq!(clean("a\x1b[6nb\x1b[cb\x1b[?1049hb"), "abbb");
        assert_eq!(clean("a\x1bcb\x0eb"), "abb");
        assert_eq!(clean("a\u{9d}52;c;x\u{9c}b\u{9b}6nc"), "a52;c;xb6nc");
        assert_eq!(clean("a\x1b[>4;2mb\x1b[?4mb"), "abb");
        let raw: Vec<u8> = TerminalFilter::default().clean(b"a\x9b6n\xff\xc3b\xe2\x82\xac");
        assert_eq!(raw, "a6nb\u{20ac}".as_bytes());
    }

    #[test]
    fn a_sequence_that_is_cut_is_still_one() {
        let mut filter = TerminalFilter::default();
        let text = "x\x1b]52;c;c2VjcmV0\x07y\x1b[31mz";
        let clean: Vec<u8> = text.bytes().flat_map(|byte| filter.clean(&[byte])).collect();
        assert_eq!(clean, b"xy\x1b[31mz");
    }
}
