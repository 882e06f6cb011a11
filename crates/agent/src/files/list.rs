//! Listing a directory: all of it as it comes, or a page in the order of names.

use std::collections::BinaryHeap;
use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use rustix::fs::{AtFlags, RawDir, readlinkat, statat};
use rustix::io::Errno;

use super::root::{Place, kind};
use super::wire::FsEntry;
use crate::wire::rfc3339;

/// Room for names that one call to the kernel brings.
const NAMES: usize = 64 * 1024;

/// Writes all entries of a directory as a JSON array.
pub(super) fn all(directory: &OwnedFd, place: &Place, out: &mut dyn Write) -> io::Result<()> {
    out.write_all(b"[")?;
    let (mut first, mut clock) = (true, Clock::default());
    each(directory, &mut |name| {
        let Some(entry) = entry(directory, place, name, &mut clock)? else { return Ok(()) };
        if !std::mem::take(&mut first) {
            out.write_all(b",")?;
        }
        Ok(serde_json::to_writer(&mut *out, &entry)?)
    })?;
    out.write_all(b"]")
}

/// The first `limit` entries after a name, in the order of their names (bytes).
pub(super) fn page(
    directory: &OwnedFd,
    place: &Place,
    after: Option<&str>,
    limit: usize,
) -> io::Result<Vec<FsEntry>> {
    // The largest of those kept is on top: memory is that of a page, however many names there are.
    let mut kept: BinaryHeap<OsString> = BinaryHeap::new();
    each(directory, &mut |name| {
        if after.is_some_and(|after| name.as_bytes() <= after.as_bytes()) {
            return Ok(());
        }
        if kept.len() < limit {
            kept.push(name.to_owned());
        } else if kept.peek().is_some_and(|largest| name < largest.as_os_str()) {
            kept.pop();
            kept.push(name.to_owned());
        }
        Ok(())
    })?;
    let names = kept.into_sorted_vec();
    let mut clock = Clock::default();
    let entries =
        names.iter().filter_map(|name| entry(directory, place, name, &mut clock).transpose());
    entries.collect()
}

/// Calls for each name but `.` and `..`.
pub(super) fn each(
    directory: &OwnedFd,
    with: &mut dyn FnMut(&OsStr) -> io::Result<()>,
) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(NAMES);
    let mut names = RawDir::new(directory, buffer.spare_capacity_mut());
    while let Some(found) = names.next() {
        let found = found?;
        let name = found.file_name().to_bytes();
        if name != b"." && name != b".." {
            with(OsStr::from_bytes(name))?;
        }
    }
    Ok(())
}

/// What is told of a name. `None` if it has gone meanwhile.
fn entry(
    directory: &OwnedFd,
    place: &Place,
    name: &OsStr,
    clock: &mut Clock,
) -> io::Result<Option<FsEntry>> {
    let about = match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(about) => about,
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    };
    let is_link = rustix::fs::FileType::from_raw_mode(about.st_mode).is_symlink();
    let target = is_link.then(|| readlinkat(directory, name, Vec::new()).ok()).flatten();
    Ok(Some(FsEntry {
        name: name.to_string_lossy().into_owned(),
        path: place.child(name),
        entry_type: kind(about.st_mode),
        size: u64::try_from(about.st_size).unwrap_or_default(),
        modified: clock.told(about.st_mtime, about.st_mtime_nsec),
        target: target
            .map(|target| OsString::from_vec(target.into_bytes()).to_string_lossy().into_owned()),
        mode: format!("{:04o}", about.st_mode & 0o7777),
    }))
}

/// Writes instants. Files of one directory are often of one second, which is written once.
#[derive(Debug, Default)]
struct Clock {
    second: i64,
    /// That second, up to its fraction.
    text: String,
}

impl Clock {
    fn told(&mut self, second: i64, nanos: u64) -> Option<String> {
        if self.text.is_empty() || self.second != second {
            let whole = rfc3339(second, 0)?;
            whole.split('.').next()?.clone_into(&mut self.text);
            self.second = second;
        }
        Some(format!("{}.{nanos:09}+00:00", self.text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_of_one_second_differ_in_their_fraction_only() {
        let mut clock = Clock::default();
        for (second, nanos) in [(0, 0), (1, 5), (1, 999_999_999), (-1, 7), (1, 6)] {
            let nanos_i32 = i32::try_from(nanos).unwrap();
            assert_eq!(
                clock.told(second, nanos),
                rfc3339_of(second, nanos_i32),
                "{second} {nanos}"
            );
        }
    }

    fn rfc3339_of(second: i64, nanos: i32) -> Option<String> {
        // A time before 1970 has its fraction counted from the second before.
        let instant = jiff::Timestamp::from_second(second).unwrap();
        let instant = instant + jiff::SignedDuration::from_nanos(nanos.into());
        rfc3339(instant.as_second(), instant.subsec_nanosecond())
    }
}
