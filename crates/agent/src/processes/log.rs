//! The log of a process: a ring of entries in a file that has no name.
//!
//! Entries are numbered from 1 over all streams. Positions count bytes of the log since its beginning and
//! never turn back; where they lie in the file is their remainder. Before an entry is overwritten the bound
//! of what is kept moves past it, and a reader looks at that bound *after* it has read: what it then holds
//! was whole, or it is told of a gap.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::watch;

use crate::wire::now_ms;

/// Bytes before the data of an entry.
const HEAD: usize = 32;

/// Bytes of data in one entry at most.
const LONGEST: usize = 16 * 1024;

/// The smallest ring: a few entries must fit.
const SMALLEST: u64 = 64 * 1024;

/// How far apart the places are that are known by heart.
const INDEXED: u64 = 64 * 1024;

/// Which stream an entry is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    Stdout,
    Stderr,
    Pty,
}

impl Stream {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
            Self::Pty => "pty",
        }
    }

    fn from_byte(byte: u8) -> Self {
        match byte {
            0 => Self::Stdout,
            1 => Self::Stderr,
            _ => Self::Pty,
        }
    }
}

/// Something that was written.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) sequence: u64,
    pub(super) timestamp_ms: u64,
    pub(super) stream: Stream,
    /// Bytes of this stream before these.
    pub(super) before: u64,
    pub(super) data: Bytes,
}

/// A place between two entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cursor {
    /// Of the entry that follows.
    pub(super) sequence: u64,
    position: u64,
}

/// What is kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) oldest: Cursor,
    pub(super) end: Cursor,
}

/// What a reader is given.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) entries: Vec<Entry>,
    pub(super) next: Cursor,
    /// The first and the last number that were overwritten before they were read.
    pub(super) gap: Option<(u64, u64)>,
}

/// A log. Writers and readers block on the disk: they are called off the async workers.
#[derive(Debug)]
pub(super) struct Log {
    file: File,
    capacity: u64,
    bounds: watch::Sender<Bounds>,
    writer: Mutex<Writer>,
}

#[derive(Debug, Default)]
struct Writer {
    /// Bytes so far, by stream.
    written: [u64; 3],
    index: VecDeque<Cursor>,
}

impl Log {
    /// Makes an empty log of so many bytes, in a file that is gone when this process is.
    pub(super) fn create(directory: &Path, capacity: u64) -> io::Result<Self> {
        let file = tempfile::tempfile_in(directory)?;
        let start = Cursor { sequence: 1, position: 0 };
        let bounds = watch::Sender::new(Bounds { oldest: start, end: start });
        let capacity = capacity.max(SMALLEST);
        Ok(Self { file, capacity, bounds, writer: Mutex::default() })
    }

    pub(super) fn bounds(&self) -> Bounds {
        *self.bounds.borrow()
    }

    /// Bytes that it takes on the disk.
    pub(super) fn size(&self) -> u64 {
        self.bounds().end.position.min(self.capacity)
    }

    /// Hears of each new end.
    pub(super) fn watch(&self) -> watch::Receiver<Bounds> {
        self.bounds.subscribe()
    }

    /// Adds what was read from a stream.
    pub(super) fn append(&self, stream: Stream, data: &[u8]) -> io::Result<()> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        for piece in data.chunks(LONGEST) {
            let mut bounds = self.bounds();
            let total = (HEAD + piece.len()) as u64;
            let before = writer.written[stream as usize];
            let mut bytes = Vec::with_capacity(HEAD + piece.len());
            bytes.extend_from_slice(&bounds.end.sequence.to_le_bytes());
            bytes.extend_from_slice(&now_ms().to_le_bytes());
            bytes.extend_from_slice(&before.to_le_bytes());
            bytes.extend_from_slice(&u32::try_from(piece.len()).unwrap_or_default().to_le_bytes());
            bytes.extend_from_slice(&[stream as u8, 0, 0, 0]);
            bytes.extend_from_slice(piece);
            if self.make_room(&mut bounds, total)? {
                self.bounds.send_replace(bounds);
            }
            self.write_at(&bytes, bounds.end.position)?;
            if writer.index.back().is_none_or(|last| bounds.end.position - last.position >= INDEXED)
            {
                writer.index.push_back(bounds.end);
            }
            writer.written[stream as usize] += piece.len() as u64;
            bounds.end =
                Cursor { sequence: bounds.end.sequence + 1, position: bounds.end.position + total };
            while writer.index.get(1).is_some_and(|next| next.position <= bounds.oldest.position) {
                writer.index.pop_front();
            }
            self.bounds.send_replace(bounds);
        }
        Ok(())
    }

    /// Moves the bound past what will be overwritten. Tells whether it moved.
    fn make_room(&self, bounds: &mut Bounds, total: u64) -> io::Result<bool> {
        let mut moved = false;
        while bounds.end.position + total - bounds.oldest.position > self.capacity {
            let (_, length) = self.head(bounds.oldest.position)?;
            bounds.oldest.sequence += 1;
            bounds.oldest.position += HEAD as u64 + length;
            moved = true;
        }
        Ok(moved)
    }

    /// The place before the first entry after this number, or before the oldest that is kept.
    pub(super) fn after(&self, after: u64) -> io::Result<Cursor> {
        let wanted = after.saturating_add(1);
        let bounds = self.bounds();
        if wanted >= bounds.end.sequence {
            return Ok(bounds.end);
        }
        if wanted <= bounds.oldest.sequence {
            return Ok(Cursor { sequence: wanted, ..bounds.oldest });
        }
        let mut cursor = {
            let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
            let later = writer.index.partition_point(|known| known.sequence <= wanted);
            let known = later.checked_sub(1).and_then(|index| writer.index.get(index)).copied();
            known.filter(|known| known.sequence >= bounds.oldest.sequence).unwrap_or(bounds.oldest)
        };
        while cursor.sequence < wanted {
            let (sequence, length) = self.head(cursor.position)?;
            if sequence != cursor.sequence {
                // Overwritten while we looked: what is kept begins further on by now.
                return self.after(after);
            }
            cursor.sequence += 1;
            cursor.position += HEAD as u64 + length;
        }
        Ok(cursor)
    }

    /// Reads entries from a place on, about so many bytes of them.
    pub(super) fn read(&self, from: Cursor, about: usize) -> io::Result<Read> {
        let bounds = self.bounds();
        let missed = (from.sequence < bounds.oldest.sequence)
            .then(|| (from.sequence, bounds.oldest.sequence - 1));
        let mut cursor = if missed.is_some() { bounds.oldest } else { from };
        let wanted = (bounds.end.position - cursor.position)
            .min(about.max(HEAD + LONGEST) as u64)
            .min(self.capacity);
        let mut bytes = vec![0; usize::try_from(wanted).unwrap_or_default()];
        self.read_at(&mut bytes, cursor.position)?;
        let mut bytes = Bytes::from(bytes);
        let mut entries = Vec::new();
        while bytes.len() >= HEAD && cursor.sequence < bounds.end.sequence {
            let head = Head::read(&bytes);
            if head.sequence != cursor.sequence || bytes.len() < HEAD + head.length {
                break;
            }
            let data = bytes.slice(HEAD..HEAD + head.length);
            bytes = bytes.slice(HEAD + head.length..);
            entries.push(Entry {
                sequence: head.sequence,
                timestamp_ms: head.timestamp_ms,
                stream: head.stream,
                before: head.before,
                data,
            });
            cursor.sequence += 1;
            cursor.position += (HEAD + head.length) as u64;
        }
        // Whatever the writer has given up meanwhile may be torn in what we hold.
        let oldest = self.bounds().oldest;
        let torn = entries.partition_point(|entry| entry.sequence < oldest.sequence);
        let gap = match (missed, torn) {
            (gap, 0) => gap,
            (gap, _) => {
                entries.drain(..torn);
                let first = gap.map_or(from.sequence, |(first, _)| first);
                if entries.is_empty() {
                    cursor = oldest;
                }
                Some((first, oldest.sequence - 1))
            }
        };
        if entries.is_empty() && cursor.sequence < oldest.sequence {
            let first = gap.map_or(from.sequence, |(first, _)| first);
            return Ok(Read { entries, next: oldest, gap: Some((first, oldest.sequence - 1)) });
        }
        Ok(Read { entries, next: cursor, gap })
    }

    /// Number and length of the entry at a position.
    fn head(&self, position: u64) -> io::Result<(u64, u64)> {
        let mut bytes = [0; HEAD];
        self.read_at(&mut bytes, position)?;
        let head = Head::read(&bytes);
        Ok((head.sequence, head.length as u64))
    }

    fn read_at(&self, bytes: &mut [u8], position: u64) -> io::Result<()> {
        let (first, second) = bytes.split_at_mut(self.until_the_turn(position, bytes.len()));
        self.file.read_exact_at(first, position % self.capacity)?;
        self.file.read_exact_at(second, 0)
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        let (first, second) = bytes.split_at(self.until_the_turn(position, bytes.len()));
        self.file.write_all_at(first, position % self.capacity)?;
        self.file.write_all_at(second, 0)
    }

    /// How many bytes fit before the file begins anew.
    fn until_the_turn(&self, position: u64, length: usize) -> usize {
        let room = self.capacity - position % self.capacity;
        length.min(usize::try_from(room).unwrap_or(usize::MAX))
    }
}

struct Head {
    sequence: u64,
    timestamp_ms: u64,
    before: u64,
    length: usize,
    stream: Stream,
}

impl Head {
    fn read(bytes: &[u8]) -> Self {
        let number = |at: usize| {
            let mut number = [0; 8];
            number.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(number)
        };
        let mut length = [0; 4];
        length.copy_from_slice(&bytes[24..28]);
        Self {
            sequence: number(0),
            timestamp_ms: number(8),
            before: number(16),
            length: u32::from_le_bytes(length) as usize,
            stream: Stream::from_byte(bytes[28]),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn log() -> Log {
        Log::create(&std::env::temp_dir(), SMALLEST).unwrap()
    }

    fn all(log: &Log, from: Cursor) -> (Vec<u64>, Vec<(u64, u64)>) {
        let (mut cursor, mut seen, mut gaps) = (from, Vec::new(), Vec::new());
        while cursor.sequence < log.bounds().end.sequence {
            let read = log.read(cursor, 4096).unwrap();
            seen.extend(read.entries.iter().map(|entry| entry.sequence));
            gaps.extend(read.gap);
            cursor = read.next;
        }
        (seen, gaps)
    }

    #[test]
    fn what_is_written_is_read_back_in_order() {
        let log = log();
        log.append(Stream::Stdout, b"one").unwrap();
        log.append(Stream::Stderr, b"two").unwrap();
        log.append(Stream::Stdout, b"three").unwrap();
        let read = log.read(log.after(0).unwrap(), 1 << 20).unwrap();
        let told: Vec<_> = read
            .entries
            .iter()
            .map(|entry| (entry.sequence, entry.stream, entry.before, entry.data.to_vec()))
            .collect();
        assert_eq!(
            told,
            [
                (1, Stream::Stdout, 0, b"one".to_vec()),
                (2, Stream::Stderr, 0, b"two".to_vec()),
                (3, Stream::Stdout, 3, b"three".to_vec()),
            ]
        );
        assert_eq!(log.after(2).unwrap().sequence, 3);
        assert_eq!(log.after(99).unwrap(), log.bounds().end);
    }

    #[test]
    fn the_ring_keeps_the_newest_and_says_what_is_gone() {
        let log = log();
        for number in 0..1000_u32 {
            log.append(Stream::Pty, &vec![u8::try_from(number % 256).unwrap(); 1000]).unwrap();
        }
        let bounds = log.bounds();
        assert!(bounds.end.position - bounds.oldest.position <= SMALLEST);
        let (seen, gaps) = all(&log, log.after(0).unwrap());
        assert_eq!(gaps, [(1, bounds.oldest.sequence - 1)]);
        assert_eq!(seen, (bounds.oldest.sequence..=1000).collect::<Vec<_>>());
        let entry = &log.read(log.after(998).unwrap(), 4096).unwrap().entries[0];
        assert_eq!((entry.data[0], entry.before), (u8::try_from(998 % 256).unwrap(), 998 * 1000));
    }

    #[test]
    fn a_chunk_larger_than_the_ring_leaves_its_end() {
        let log = log();
        let chunk: Vec<u8> = (0..200_000_u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
        log.append(Stream::Stdout, &chunk).unwrap();
        let read = log.read(log.bounds().oldest, 1 << 20).unwrap();
        let kept: Vec<u8> = read.entries.iter().flat_map(|entry| entry.data.to_vec()).collect();
        assert!(!kept.is_empty() && chunk.ends_with(&kept));
    }

    /// Readers beside a writer that laps them: what they get is whole and in order, the rest is a gap.
    #[test]
    fn a_reader_that_is_lapped_gets_no_torn_entry() {
        let log = Arc::new(log());
        let writer = std::thread::spawn({
            let log = Arc::clone(&log);
            move || {
                for number in 1..=20_000_u32 {
                    log.append(Stream::Stdout, &number.to_le_bytes().repeat(50)).unwrap();
                }
            }
        });
        let (mut cursor, mut expected) = (log.after(0).unwrap(), 1_u64);
        while expected <= 20_000 {
            let read = log.read(cursor, 8192).unwrap();
            if let Some((first, last)) = read.gap {
                assert_eq!(first, expected);
                expected = last + 1;
            }
            for entry in &read.entries {
                assert_eq!(entry.sequence, expected);
                let number = u32::try_from(entry.sequence).unwrap();
                assert_eq!(entry.data, number.to_le_bytes().repeat(50));
                expected += 1;
            }
            cursor = read.next;
        }
        writer.join().unwrap();
    }
}
