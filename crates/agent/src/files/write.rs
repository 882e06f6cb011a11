//! Writing a file: streamed into a file that has no name yet, which then takes its place whole.
//!
//! Whoever reads meanwhile sees the old content, or nothing, and after a crash there is either the old
//! file or the new.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use axum::body::Body;
use axum::http::header::{HeaderMap, IF_MATCH, IF_NONE_MATCH};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, Stat, fchmod, linkat, openat, renameat, unlinkat,
};
use rustix::io::Errno;

use super::error::FileError;
use super::pending::{Note, Pending, SUFFIX};
use super::read::etag;
use super::root::{Parents, Place, Root, about, by_descriptor};
use crate::blocking::blocking;

/// Bytes of zeros that are worth a hole.
const HOLE: usize = 64 * 1024;

/// Bytes that are gathered before they are written.
const PIECE: usize = 256 * 1024;

/// How content comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// At once.
    Whole,
    /// Piece by piece, for as long as it takes.
    Streamed,
}

/// A file in the making, in the directory where it will be.
#[derive(Debug)]
pub(super) struct Draft {
    file: File,
    parent: OwnedFd,
    name: OsString,
    place: Place,
    /// Its name until it is done, where the file system knows no nameless files.
    temporary: Option<OsString>,
    pending: Pending,
    note: Option<Note>,
    written: u64,
}

impl Draft {
    /// Begins a file. Directories that are missing are made.
    pub(super) fn begin(root: &Root, place: &Place, content: Content) -> Result<Self, FileError> {
        let (parent, name) = root.target(place, Parents::Made)?;
        let mode = Mode::from_raw_mode(0o666);
        Self::begin_as(content, root.pending(), parent, name, place.clone(), mode)
    }

    /// Begins a file in a directory that is open.
    pub(super) fn begin_in(
        pending: &Pending,
        parent: OwnedFd,
        name: OsString,
        place: Place,
        mode: Mode,
    ) -> Result<Self, FileError> {
        Self::begin_as(Content::Streamed, pending, parent, name, place, mode)
    }

    fn begin_as(
        content: Content,
        pending: &Pending,
        parent: OwnedFd,
        name: OsString,
        place: Place,
        mode: Mode,
    ) -> Result<Self, FileError> {
        let failed = |errno| place.error(errno);
        let old = about(parent.as_fd(), &name).map_err(failed)?;
        if let Some(old) = old {
            match FileType::from_raw_mode(old.st_mode) {
                FileType::RegularFile | FileType::Symlink => {}
                _ => return Err(FileError::NotAFile(place.path)),
            }
        }
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let mut note = None;
        // One that replaces another needs a name in the end. What comes at once has it from the beginning, which
        // costs the file system less than a nameless file and a link.
        let nameless = if old.is_some() && content == Content::Whole {
            Err(Errno::OPNOTSUPP)
        } else {
            openat(&parent, ".", flags | OFlags::TMPFILE, mode)
        };
        let (opened, temporary) = match nameless {
            Ok(opened) => (opened, None),
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOENT) => {
                let temporary = temporary(&name);
                note = noted(pending, &parent, &temporary);
                let flags = flags | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
                (openat(&parent, &temporary, flags, mode).map_err(failed)?, Some(temporary))
            }
            Err(errno) => return Err(failed(errno)),
        };
        let (file, pending) = (File::from(opened), pending.clone());
        let draft = Self { file, parent, name, place, temporary, pending, note, written: 0 };
        if let Some(old) = old.filter(|old| FileType::from_raw_mode(old.st_mode).is_file()) {
            // What could be executed before still can; whose it is and who may read it stays.
            draft.take_after(&old);
        }
        Ok(draft)
    }

    fn take_after(&self, old: &Stat) {
        let _ = fchmod(&self.file, Mode::from_raw_mode(old.st_mode & 0o777));
        let mine = rustix::fs::fstat(&self.file);
        if mine.is_ok_and(|mine| (mine.st_uid, mine.st_gid) != (old.st_uid, old.st_gid)) {
            let owner = rustix::fs::Uid::from_raw(old.st_uid);
            let group = rustix::fs::Gid::from_raw(old.st_gid);
            let _ = rustix::fs::fchown(&self.file, Some(owner), Some(group));
        }
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), FileError> {
        self.file.write_all(bytes).map_err(|error| self.failed(&error))?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Copies what a reader gives.
    pub(super) fn fill(&mut self, reader: &mut dyn io::Read) -> Result<(), FileError> {
        let copied = io::copy(reader, &mut self.file).map_err(|error| self.failed(&error))?;
        self.written += copied;
        Ok(())
    }

    /// The same, with holes where there are zeros: what takes no room in an archive takes none here.
    pub(super) fn fill_with_holes(&mut self, reader: &mut dyn io::Read) -> Result<(), FileError> {
        let mut piece = vec![0; HOLE];
        loop {
            let mut filled = 0;
            while filled < piece.len() {
                match reader.read(&mut piece[filled..]).map_err(|error| self.failed(&error))? {
                    0 => break,
                    count => filled += count,
                }
            }
            if filled == 0 {
                let length = self.file.set_len(self.written);
                return length.map_err(|error| self.failed(&error));
            }
            let bytes = &piece[..filled];
            if bytes.iter().any(|byte| *byte != 0) {
                self.file.write_all_at(bytes, self.written).map_err(|error| self.failed(&error))?;
            }
            self.written += filled as u64;
        }
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    fn failed(&self, error: &io::Error) -> FileError {
        match error.raw_os_error() {
            Some(errno) => self.place.error(Errno::from_raw_os_error(errno)),
            None => FileError::Entry(format!("could not be read: {error}")),
        }
    }

    /// Puts the file in its place. Gives the bytes in it.
    pub(super) fn finish(mut self) -> Result<u64, FileError> {
        let named = self.put_in_place();
        let failed = |errno| self.place.error(errno);
        named.map_err(failed)?;
        self.temporary = None;
        self.note = None;
        Ok(self.written)
    }

    fn put_in_place(&mut self) -> rustix::io::Result<()> {
        if self.temporary.is_none() {
            let from = by_descriptor(&self.file);
            let link = |name: &OsStr| {
                linkat(rustix::fs::CWD, &from, &self.parent, name, AtFlags::SYMLINK_FOLLOW)
            };
            match link(&self.name) {
                Err(Errno::EXIST) => {}
                done => return done,
            }
            // There is one: only a rename replaces it in one step, and a rename wants a name.
            let temporary = temporary(&self.name);
            self.note = noted(&self.pending, &self.parent, &temporary);
            link(&temporary)?;
            self.temporary = Some(temporary);
        }
        let Some(temporary) = &self.temporary else { return Ok(()) };
        renameat(&self.parent, temporary, &self.parent, &self.name)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            let _ = unlinkat(&self.parent, temporary, AtFlags::empty());
        }
    }
}

/// Notes a name that is to be made in a directory.
pub(super) fn noted(pending: &Pending, parent: &OwnedFd, name: &OsStr) -> Option<Note> {
    let directory =
        rustix::fs::readlinkat(rustix::fs::CWD, by_descriptor(parent), Vec::new()).ok()?;
    let directory = Path::new(OsStr::from_bytes(directory.as_bytes()));
    pending.note(&directory.join(name))
}

/// A name that nobody else has.
pub(super) fn temporary(name: &OsStr) -> OsString {
    let mut bytes = [0_u8; 8];
    // One that repeats is found by O_EXCL.
    let _ = getrandom::fill(&mut bytes);
    let random: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut temporary = OsString::from(".");
    // Kept short: the name itself may be as long as names can be.
    temporary.push(OsStr::new(&name.to_string_lossy().chars().take(40).collect::<String>()));
    temporary.push(format!(".{random}{SUFFIX}"));
    temporary
}

impl Root {
    /// Writes a small file that only its owner may read.
    pub(crate) fn write_private(&self, path: &str, content: &[u8]) -> Result<(), FileError> {
        let place = self.place(path)?;
        let (parent, name) = self.target(&place, Parents::Made)?;
        let mode = Mode::from_raw_mode(0o600);
        let mut draft =
            Draft::begin_as(Content::Whole, self.pending(), parent, name, place.clone(), mode)?;
        // One that was there with another mode gives it up.
        fchmod(draft.file(), mode).map_err(|errno| place.error(errno))?;
        draft.write(content)?;
        draft.finish().map(drop)
    }

    /// Opens a file to read it.
    pub(crate) fn read(&self, path: &str) -> Result<File, FileError> {
        let place = self.place(path)?;
        Ok(File::from(self.file(&place, OFlags::RDONLY)?.0))
    }
}

/// Writes a body to a file; gives the bytes written.
pub(super) async fn upload(
    root: Root,
    place: Place,
    asked: &HeaderMap,
    body: Body,
) -> Result<u64, FileError> {
    let condition = Condition::read(asked);
    let mut body = body;
    let (first, rest) = gather(&mut body).await?;
    let started = blocking(move || {
        condition.check(&root, &place)?;
        let content = if rest == Rest::Ended { Content::Whole } else { Content::Streamed };
        let mut draft = Draft::begin(&root, &place, content)?;
        draft.write(&first)?;
        // What came whole in one piece is done in one trip.
        if rest == Rest::Ended {
            condition.finish(&root, &place, draft).map(Started::Done)
        } else {
            Ok(Started::Open(Box::new(draft), root, place, condition))
        }
    });
    let (mut draft, root, place, condition) = match started.await? {
        Started::Done(written) => return Ok(written),
        Started::Open(draft, root, place, condition) => (draft, root, place, condition),
    };
    loop {
        let (piece, rest) = gather(&mut body).await?;
        let written = blocking(move || draft.write(&piece).map(|()| draft));
        draft = written.await?;
        if rest == Rest::Ended {
            return blocking(move || condition.finish(&root, &place, *draft)).await;
        }
    }
}

enum Started {
    Done(u64),
    Open(Box<Draft>, Root, Place, Condition),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rest {
    Ended,
    More,
}

/// The next piece of a body.
async fn gather(body: &mut Body) -> Result<(Bytes, Rest), FileError> {
    let mut gathered = BytesMut::new();
    while gathered.len() < PIECE {
        let Some(frame) = body.frame().await else { return Ok((gathered.freeze(), Rest::Ended)) };
        let frame = frame.map_err(|_| FileError::Upload)?;
        if let Ok(data) = frame.into_data() {
            gathered.extend_from_slice(&data);
        }
    }
    Ok((gathered.freeze(), Rest::More))
}

/// On what the write depends.
#[derive(Debug)]
enum Condition {
    None,
    Is(String),
    IsNew,
}

impl Condition {
    fn read(asked: &HeaderMap) -> Self {
        let text = |name| asked.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
        match (text(IF_MATCH), text(IF_NONE_MATCH)) {
            (Some(etag), _) => Self::Is(etag.to_owned()),
            (None, Some("*")) => Self::IsNew,
            _ => Self::None,
        }
    }

    /// Puts a file in its place if the condition still holds. Uploads do so one after the other: nobody's is replaced
    /// by one who has not seen it.
    fn finish(&self, root: &Root, place: &Place, draft: Draft) -> Result<u64, FileError> {
        let _turn = root.turn();
        self.check(root, place)?;
        draft.finish()
    }

    fn check(&self, root: &Root, place: &Place) -> Result<(), FileError> {
        let found = match self {
            Self::None => return Ok(()),
            Self::Is(_) | Self::IsNew => match root.file(place, OFlags::RDONLY) {
                Ok((_, about)) => Some(etag(&about)),
                Err(FileError::NotFound(_)) => None,
                Err(error) => return Err(error),
            },
        };
        let holds = match (self, &found) {
            (Self::Is(known), Some(_)) if known == "*" => true,
            (Self::Is(known), Some(etag)) => known.split(',').any(|one| one.trim() == etag),
            (Self::IsNew, None) => true,
            _ => false,
        };
        if holds {
            Ok(())
        } else {
            Err(FileError::Changed(found.unwrap_or_else(|| "none".to_owned())))
        }
    }
}
