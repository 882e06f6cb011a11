//! Reading a file: as a stream, whole or in part.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use axum::body::Body;
use axum::http::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap, IF_NONE_MATCH,
    IF_RANGE, LAST_MODIFIED, RANGE,
};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use rustix::fs::{OFlags, Stat};
use rustix::io::{ReadWriteFlags, preadv2};

use super::error::FileError;
use super::root::{Place, Root};
use crate::blocking::blocking;
use crate::problem::{Code, Problem};

/// Bytes of a piece that are read at once, off the async workers.
const PIECE: u64 = 256 * 1024;

/// Bytes that are read by an async worker itself, if they are in memory.
const AT_HAND: u64 = 64 * 1024;

/// What is read of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Extent {
    from: u64,
    length: u64,
}

/// Says which content this is: another content has another. Quoted, as in the header.
pub(super) fn etag(about: &Stat) -> String {
    format!(
        "\"{:x}-{:x}-{:x}{:08x}\"",
        about.st_ino, about.st_size, about.st_mtime, about.st_mtime_nsec
    )
}

/// The answer to a `GET`.
pub(super) async fn answer(
    root: Root,
    place: Place,
    asked: HeaderMap,
) -> Result<Response, Problem> {
    if let Some(response) = at_hand(&root, &place, &asked) {
        return Ok(response);
    }
    let opened = blocking(move || {
        let (file, about) = root.file(&place, OFlags::RDONLY)?;
        let file = File::from(file);
        let size = u64::try_from(about.st_size).unwrap_or_default();
        let wanted = wanted(&asked, &about, size);
        // What fits in one piece is read here: the common case costs one trip to another thread.
        let whole = match wanted {
            Wanted::Part(_, extent) if extent.length <= PIECE => {
                Some(piece(&file, extent).map_err(|error| told(&place, &error))?)
            }
            _ => None,
        };
        Ok::<_, FileError>((file, about, wanted, whole))
    });
    let (file, about, wanted, whole) = opened.await?;
    Ok(respond(file, &about, wanted, whole))
}

/// The answer for a small file that the kernel has in memory: without a trip to another thread, and without ever
/// waiting for a disk.
fn at_hand(root: &Root, place: &Place, asked: &HeaderMap) -> Option<Response> {
    let (file, about) = root.file_at_hand(place)?;
    let size = u64::try_from(about.st_size).unwrap_or_default();
    let Wanted::Part(status, extent) = wanted(asked, &about, size) else { return None };
    if extent.length > AT_HAND {
        return None;
    }
    let mut bytes = vec![0; usize::try_from(extent.length).ok()?];
    let read =
        preadv2(&file, &mut [IoSliceMut::new(&mut bytes)], extent.from, ReadWriteFlags::NOWAIT);
    (read == Ok(bytes.len()))
        .then(|| respond(file.into(), &about, Wanted::Part(status, extent), Some(bytes.into())))
}

fn respond(file: File, about: &Stat, wanted: Wanted, whole: Option<Bytes>) -> Response {
    let size = u64::try_from(about.st_size).unwrap_or_default();
    let (status, extent) = match wanted {
        Wanted::Unchanged => (StatusCode::NOT_MODIFIED, None),
        Wanted::Part(status, extent) => (status, Some(extent)),
        Wanted::Nothing => {
            let problem =
                Problem::new(Code::RangeNotSatisfiable, format!("the file has {size} bytes"));
            let mut response = problem.into_response();
            header(response.headers_mut(), CONTENT_RANGE, &format!("bytes */{size}"));
            return response;
        }
    };
    let body = match (extent, whole) {
        (None, _) => Body::empty(),
        (Some(_), Some(bytes)) => Body::from(bytes),
        (Some(extent), None) => Body::from_stream(pieces(file, extent)),
    };
    let mut response = (status, body).into_response();
    let headers = response.headers_mut();
    header(headers, CONTENT_TYPE, "application/octet-stream");
    header(headers, ACCEPT_RANGES, "bytes");
    header(headers, ETAG, &etag(about));
    if let Ok(instant) = jiff::Timestamp::from_second(about.st_mtime) {
        header(headers, LAST_MODIFIED, &instant.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string());
    }
    if let Some(extent) = extent {
        header(headers, CONTENT_LENGTH, &extent.length.to_string());
        if status == StatusCode::PARTIAL_CONTENT {
            let last = extent.from + extent.length - 1;
            header(headers, CONTENT_RANGE, &format!("bytes {}-{last}/{size}", extent.from));
        }
    }
    response
}

fn header(headers: &mut HeaderMap, name: axum::http::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// What a request comes down to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Part(StatusCode, Extent),
    Unchanged,
    Nothing,
}

fn wanted(asked: &HeaderMap, about: &Stat, size: u64) -> Wanted {
    let etag = etag(about);
    let text = |name| asked.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    if let Some(known) = text(IF_NONE_MATCH)
        && (known.trim() == "*" || known.split(',').any(|one| one.trim() == etag))
    {
        return Wanted::Unchanged;
    }
    let whole = Wanted::Part(StatusCode::OK, Extent { from: 0, length: size });
    let Some(range) = text(RANGE) else { return whole };
    if text(IF_RANGE).is_some_and(|condition| condition.trim() != etag) {
        return whole;
    }
    match Range::parse(range, size) {
        Range::Ignored => whole,
        Range::Past => Wanted::Nothing,
        Range::Part(extent) => Wanted::Part(StatusCode::PARTIAL_CONTENT, extent),
    }
}

/// What a `range` header comes down to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Range {
    Part(Extent),
    /// It begins past the end.
    Past,
    /// Several parts, another unit, or no range at all: the whole is a right answer, too.
    Ignored,
}

impl Range {
    /// Reads `bytes=A-B`, `bytes=A-`, `bytes=-N`.
    fn parse(text: &str, size: u64) -> Self {
        match Self::bounds(text, size) {
            None => Self::Ignored,
            Some((from, to)) if from < size && from < to => {
                Self::Part(Extent { from, length: to - from })
            }
            Some(_) => Self::Past,
        }
    }

    /// From where, and up to where.
    fn bounds(text: &str, size: u64) -> Option<(u64, u64)> {
        let (first, last) = text.trim().strip_prefix("bytes=")?.split_once('-')?;
        let (first, last) = (first.trim(), last.trim());
        if first.is_empty() {
            let count: u64 = last.parse().ok()?;
            return Some((size.saturating_sub(count), size));
        }
        let from: u64 = first.parse().ok()?;
        let to =
            if last.is_empty() { u64::MAX } else { last.parse::<u64>().ok()?.saturating_add(1) };
        (from < to).then_some((from, to.min(size)))
    }
}

/// Reads an extent that fits in memory.
fn piece(file: &File, extent: Extent) -> io::Result<Bytes> {
    let mut bytes = vec![0; usize::try_from(extent.length).unwrap_or_default()];
    file.read_exact_at(&mut bytes, extent.from)?;
    Ok(bytes.into())
}

/// A file piece by piece, each read when the client has taken the one before: no thread waits for a
/// slow client. A file that has become shorter breaks the stream off; the length was promised.
fn pieces(
    file: File,
    extent: Extent,
) -> impl futures_util::Stream<Item = io::Result<Bytes>> + Send {
    futures_util::stream::try_unfold((Arc::new(file), extent), |(file, rest)| async move {
        if rest.length == 0 {
            return Ok(None);
        }
        let now = Extent { from: rest.from, length: rest.length.min(PIECE) };
        let next = Extent { from: rest.from + now.length, length: rest.length - now.length };
        let reader = Arc::clone(&file);
        let bytes = blocking(move || piece(&reader, now)).await?;
        Ok(Some((bytes, (file, next))))
    })
}

fn told(place: &Place, error: &io::Error) -> FileError {
    match error.raw_os_error() {
        Some(errno) => place.error(rustix::io::Errno::from_raw_os_error(errno)),
        None => FileError::Os { path: place.path.clone(), text: error.to_string(), errno: 0 },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_the_standard_says() {
        let part = |text| Range::parse(text, 10);
        let extent = |from, length| Range::Part(Extent { from, length });
        assert_eq!(part("bytes=0-3"), extent(0, 4));
        assert_eq!(part("bytes=8-"), extent(8, 2));
        assert_eq!(part("bytes=8-99"), extent(8, 2));
        assert_eq!(part("bytes=-3"), extent(7, 3));
        assert_eq!(part("bytes=-99"), extent(0, 10));
        assert_eq!(part("bytes=10-"), Range::Past);
        assert_eq!(part("bytes=99-100"), Range::Past);
        assert_eq!(part("bytes=-0"), Range::Past);
        assert_eq!(part("bytes=5-2"), Range::Ignored);
        assert_eq!(part("bytes=0-1,3-4"), Range::Ignored);
        assert_eq!(part("lines=0-1"), Range::Ignored);
    }
}
