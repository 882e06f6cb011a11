//! Looking for names, and for text in files.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::os::fd::{AsFd as _, OwnedFd};

use glob::Pattern;
use rustix::fs::{FileType, Mode, OFlags, openat};

use super::error::FileError;
use super::list::each;
use super::root::{Place, about, kind};
use super::tree::open_directory;
use super::wire::{SearchMatch, SearchQuery, SearchResult};

/// Matches in an answer.
const DEFAULT_LIMIT: u32 = 1000;
const MOST: u32 = 10_000;

/// Things that one search looks at, directories in each other, and bytes of a file that is searched.
const LOOKED_AT: u64 = 1_000_000;
const DEEPEST: usize = 64;
const LARGEST: u64 = 64 * 1024 * 1024;

/// Bytes of a line that are searched, and characters of one that are told.
const LINE: u64 = 64 * 1024;
const TOLD: usize = 300;

/// Searches below a directory. Links are not followed.
pub(super) fn search(
    directory: &OwnedFd,
    place: &Place,
    query: &SearchQuery,
) -> Result<SearchResult, FileError> {
    let name = Name::read(&query.q)?;
    if query.q.is_empty() && query.content.as_deref().is_none_or(str::is_empty) {
        return Err(FileError::Path("say what to look for: `q` or `content`".to_owned()));
    }
    let mut search = Search {
        name,
        text: query.content.as_deref().filter(|text| !text.is_empty()),
        limit: query.limit.unwrap_or(DEFAULT_LIMIT).clamp(1, MOST) as usize,
        looked_at: 0,
        found: SearchResult { matches: Vec::new(), truncated: false },
    };
    match search.walk(directory, &place.path, 0) {
        Ok(()) => Ok(search.found),
        Err(_) if search.found.truncated => Ok(search.found),
        Err(error) => Err(super::tree::os(place, &error)),
    }
}

/// What a name must be.
enum Name {
    Part(String),
    Whole(Pattern),
}

impl Name {
    fn read(q: &str) -> Result<Self, FileError> {
        if !q.contains(['*', '?', '[']) {
            return Ok(Self::Part(q.to_lowercase()));
        }
        let pattern = Pattern::new(q);
        pattern.map(Self::Whole).map_err(|error| FileError::Path(format!("q: {error}")))
    }

    fn is(&self, name: &str) -> bool {
        match self {
            Self::Part(part) => name.to_lowercase().contains(part),
            Self::Whole(pattern) => pattern.matches(name),
        }
    }
}

struct Search<'a> {
    name: Name,
    text: Option<&'a str>,
    limit: usize,
    looked_at: u64,
    found: SearchResult,
}

impl Search<'_> {
    fn walk(&mut self, directory: &OwnedFd, path: &str, depth: usize) -> io::Result<()> {
        each(directory, &mut |name| {
            self.looked_at += 1;
            if self.looked_at > LOOKED_AT {
                return self.enough();
            }
            let Some(found) = about(directory.as_fd(), name)? else { return Ok(()) };
            let shown = name.to_string_lossy();
            let path = format!("{}/{shown}", path.trim_end_matches('/'));
            let file_type = FileType::from_raw_mode(found.st_mode);
            if self.name.is(&shown) {
                match self.text {
                    None => self.add(&path, kind(found.st_mode), None)?,
                    Some(text)
                        if file_type.is_file() && found.st_size.cast_unsigned() <= LARGEST =>
                    {
                        self.look_into(directory, name, &path, text)?;
                    }
                    Some(_) => {}
                }
            }
            if file_type.is_dir() && depth < DEEPEST {
                // One that may not be read is passed over, as `find` does.
                if let Ok(inside) = open_directory(directory, name) {
                    self.walk(&inside, &path, depth + 1)?;
                }
            }
            Ok(())
        })
    }

    fn look_into(
        &mut self,
        directory: &OwnedFd,
        name: &std::ffi::OsStr,
        path: &str,
        text: &str,
    ) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let Ok(opened) = openat(directory, name, flags, Mode::empty()) else { return Ok(()) };
        let mut reader = BufReader::new(File::from(opened));
        let (mut line, mut number) = (Vec::new(), 0_u64);
        loop {
            line.clear();
            let read = reader.by_ref().take(LINE).read_until(b'\n', &mut line)?;
            // Text files have no NUL; what has one is not searched further.
            if read == 0 || line.contains(&0) {
                return Ok(());
            }
            number += 1;
            let shown = String::from_utf8_lossy(&line);
            if shown.contains(text) {
                let shown = shown.trim_end().chars().take(TOLD).collect();
                self.add(path, "file", Some((number, shown)))?;
            }
        }
    }

    fn add(
        &mut self,
        path: &str,
        entry_type: &'static str,
        line: Option<(u64, String)>,
    ) -> io::Result<()> {
        if self.found.matches.len() >= self.limit {
            return self.enough();
        }
        let (line, text) = line.unzip();
        self.found.matches.push(SearchMatch { path: path.to_owned(), entry_type, line, text });
        Ok(())
    }

    /// Ends the walk.
    fn enough(&mut self) -> io::Result<()> {
        self.found.truncated = true;
        Err(io::Error::other("enough"))
    }
}
