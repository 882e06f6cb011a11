//! Which host a TLS client says it wants: the ClientHello's server name.
//!
//! Only read, never answered. Records are joined, since hellos with post-quantum keys span packets.

/// A hello is no longer than this.
pub(crate) const LONGEST_HELLO: usize = 64 * 1024;

/// What a ClientHello asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    /// As sent; not checked to be a host name.
    pub(crate) server_name: Option<String>,
    /// Whether the real server name may be another one, encrypted.
    pub(crate) encrypted: bool,
}

/// How far a prefix of a connection can be read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    Done(Hello),
    /// More bytes are needed.
    More,
    /// Not a ClientHello, or a malformed one.
    Not,
}

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const ENCRYPTED_CLIENT_HELLO: u16 = 0xfe0d;

/// Reads the beginning of a connection.
pub(crate) fn read(bytes: &[u8]) -> Reading {
    let mut message = Vec::new();
    let mut rest = bytes;
    loop {
        let Some((header, after)) = rest.split_first_chunk::<5>() else {
            return if could_be_record(rest) { Reading::More } else { Reading::Not };
        };
        let [kind, major, _, high, low] = *header;
        let length = usize::from(u16::from_be_bytes([high, low]));
        if kind != HANDSHAKE || major != 3 || length == 0 || message.len() + length > LONGEST_HELLO
        {
            return Reading::Not;
        }
        let available = length.min(after.len());
        message.extend_from_slice(&after[..available]);
        match whole_message(&message) {
            Whole::Yes(hello) => return parse(hello).map_or(Reading::Not, Reading::Done),
            Whole::No => return Reading::Not,
            Whole::NotYet if available < length => return Reading::More,
            Whole::NotYet => rest = &after[length..],
        }
    }
}

fn could_be_record(start: &[u8]) -> bool {
    start.iter().zip([HANDSHAKE, 3]).all(|(byte, expected)| *byte == expected)
}

enum Whole<'a> {
    Yes(&'a [u8]),
    NotYet,
    No,
}

/// The body of the first handshake message, if all of it is there.
fn whole_message(message: &[u8]) -> Whole<'_> {
    let Some((&[kind, a, b, c], body)) = message.split_first_chunk::<4>() else {
        return Whole::NotYet;
    };
    let length = usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap_or(usize::MAX);
    if kind != CLIENT_HELLO || length > LONGEST_HELLO {
        return Whole::No;
    }
    body.get(..length).map_or(Whole::NotYet, Whole::Yes)
}

fn parse(hello: &[u8]) -> Option<Hello> {
    let mut reader = Reader(hello);
    reader.take(2 + 32)?; // version, random
    reader.vector_u8()?; // session id
    reader.vector_u16()?; // cipher suites
    reader.vector_u8()?; // compression methods
    let mut found = Hello { server_name: None, encrypted: false };
    if reader.0.is_empty() {
        return Some(found);
    }
    let mut extensions = Reader(reader.vector_u16()?);
    while !extensions.0.is_empty() {
        let kind = extensions.u16()?;
        let content = extensions.vector_u16()?;
        match kind {
            // Two names would let us and the server choose differently.
            SERVER_NAME if found.server_name.is_some() => return None,
            SERVER_NAME => found.server_name = Some(server_name(content)?),
            ENCRYPTED_CLIENT_HELLO => found.encrypted = true,
            _ => {}
        }
    }
    reader.0.is_empty().then_some(found)
}

/// A list of exactly one host name.
fn server_name(content: &[u8]) -> Option<String> {
    let mut list = Reader(Reader(content).vector_u16()?);
    let [0] = list.take(1)? else { return None };
    let name = list.vector_u16()?;
    if !list.0.is_empty() {
        return None;
    }
    String::from_utf8(name.to_vec()).ok()
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn vector_u8(&mut self) -> Option<&'a [u8]> {
        let length = usize::from(self.take(1)?[0]);
        self.take(length)
    }

    fn vector_u16(&mut self) -> Option<&'a [u8]> {
        let length = usize::from(self.u16()?);
        self.take(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn vector(bytes: &[u8]) -> Vec<u8> {
        [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
    }

    fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
        [kind.to_be_bytes().to_vec(), vector(content)].concat()
    }

    fn name_extension(name: &str) -> Vec<u8> {
        extension(SERVER_NAME, &vector(&[&[0], vector(name.as_bytes()).as_slice()].concat()))
    }

    fn hello(extensions: &[u8]) -> Vec<u8> {
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.push(0);
        body.extend(vector(&[0x13, 1]));
        body.extend([1, 0]);
        body.extend(vector(extensions));
        let length = u32::try_from(body.len()).unwrap().to_be_bytes();
        [&[CLIENT_HELLO, length[1], length[2], length[3]], body.as_slice()].concat()
    }

    fn records(message: &[u8], each: usize) -> Vec<u8> {
        message
            .chunks(each)
            .flat_map(|part| [vec![HANDSHAKE, 3, 1], vector(part)].concat())
            .collect()
    }

    #[test]
    fn the_server_name_is_found_however_the_hello_is_cut() {
        let message = hello(&name_extension("api.example.com"));
        let expected =
            Reading::Done(Hello { server_name: Some("api.example.com".into()), encrypted: false });
        for each in [1, 5, 40, 16_384] {
            let bytes = records(&message, each);
            assert_eq!(read(&bytes), expected, "{each}");
            for end in 0..bytes.len() {
                assert_eq!(read(&bytes[..end]), Reading::More, "{each} {end}");
            }
        }
    }

    #[test]
    fn no_name_an_encrypted_one_and_two_are_told_apart() {
        let parsed = |extensions: &[u8]| read(&records(&hello(extensions), 16_384));
        assert_eq!(parsed(&[]), Reading::Done(Hello { server_name: None, encrypted: false }));
        let encrypted =
            [name_extension("outer.example"), extension(ENCRYPTED_CLIENT_HELLO, &[0])].concat();
        assert!(matches!(parsed(&encrypted), Reading::Done(Hello { encrypted: true, .. })));
        let two = [name_extension("a.example"), name_extension("b.example")].concat();
        assert_eq!(parsed(&two), Reading::Not);
    }

    #[test]
    fn what_is_not_tls_is_known_at_once() {
        assert_eq!(read(b"GET / HTTP/1.1\r\n"), Reading::Not);
        assert_eq!(read(b"S"), Reading::Not);
        assert_eq!(read(&[]), Reading::More);
    }

    proptest! {
        #[test]
        fn garbage_is_survived(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            at in 0_usize..120,
            value in any::<u8>(),
        ) {
            drop(read(&bytes));
            let mut changed = records(&hello(&name_extension("api.example.com")), 50);
            if let Some(byte) = changed.get_mut(at) {
                *byte = value;
            }
            drop(read(&changed));
        }
    }
}
