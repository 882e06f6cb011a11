//! Unpacking foreign archives beneath a descriptor.
//!
//! What an archive says is a wish. Paths are looked up inside the target, links included; devices, set-id
//! bits and owners are left out; numbers and sizes have limits.

use std::ffi::{CString, OsStr};
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, linkat, mkdirat, openat, openat2, symlinkat,
    unlinkat,
};
use rustix::io::Errno;
use tar::{Archive, EntryType};

use crate::tree;

/// How much an archive may hold.
#[derive(Debug, Clone, Copy)]
pub struct UnpackLimits {
    pub entries: u64,
    pub bytes: u64,
}

/// What files named `.wh.…` mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whiteouts {
    /// Nothing: they are files.
    Kept,
    /// As in the layer of an image: something is gone.
    Applied,
}

/// What was unpacked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unpacked {
    pub entries: u64,
    pub bytes: u64,
    /// Devices, FIFOs, and what has no place below the target.
    pub left_out: u64,
}

/// Why an archive was not unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    #[error("the archive could not be read or written out")]
    Disk(#[from] io::Error),
    #[error("the archive holds more than {0}")]
    TooMuch(&'static str),
    #[error("the archive's {0:?} leads out of it")]
    Outside(String),
}

/// Unpacks an archive into a directory that nobody else writes to.
pub fn unpack(
    archive: impl Read,
    target: &Path,
    whiteouts: Whiteouts,
    limits: UnpackLimits,
) -> Result<Unpacked, UnpackError> {
    let top = tree::open_top(target)?;
    let mut done = Unpacked::default();
    let mut archive = Archive::new(archive);
    for entry in archive.entries()? {
        let mut entry = entry?;
        done.entries += 1;
        if done.entries > limits.entries {
            return Err(UnpackError::TooMuch("entries"));
        }
        let path = inside(&entry.path_bytes())?;
        if path.is_empty() {
            continue;
        }
        let (parent, name) = split(&path);
        let parent = directory(&top, parent)?;
        let gone = name.strip_prefix(b".wh.").filter(|_| whiteouts == Whiteouts::Applied);
        if let Some(gone) = gone {
            if matches!(gone, b"" | b"." | b"..") {
                return Err(UnpackError::Outside(String::from_utf8_lossy(&path).into_owned()));
            }
            remove(&parent, gone)?;
            continue;
        }
        let name = CString::new(name).map_err(io::Error::other)?;
        let mode = Mode::from_raw_mode(entry.header().mode()? & 0o777);
        match entry.header().entry_type() {
            EntryType::Directory => make_directory(&parent, &name, mode)?,
            EntryType::Symlink => {
                let target = entry.link_name_bytes().unwrap_or_default().into_owned();
                make_way(&parent, &name)?;
                let target = CString::new(target).map_err(io::Error::other)?;
                symlinkat(&target, &parent, &name).map_err(io::Error::from)?;
            }
            EntryType::Link => {
                let target = inside(&entry.link_name_bytes().unwrap_or_default())?;
                make_way(&parent, &name)?;
                link(&top, &target, &parent, &name)?;
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let left = limits.bytes.saturating_sub(done.bytes);
                make_way(&parent, &name)?;
                done.bytes += write(&mut entry, &parent, &name, mode, left)?;
            }
            _ => done.left_out += 1,
        }
    }
    Ok(done)
}

/// A path without what would lead anywhere else: relative, without `..`.
fn inside(path: &[u8]) -> Result<Vec<u8>, UnpackError> {
    let mut names: Vec<&[u8]> = Vec::new();
    for component in Path::new(OsStr::from_bytes(path)).components() {
        match component {
            Component::Normal(name) => names.push(name.as_bytes()),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(UnpackError::Outside(String::from_utf8_lossy(path).into_owned()));
            }
        }
    }
    Ok(names.join(&b'/'))
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&[], path),
    }
}

/// Opens a directory below the top, made if it is not there; links are followed as if the top were `/`.
fn directory(top: &OwnedFd, path: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = |path: &[u8]| {
        let path = if path.is_empty() { b".".as_slice() } else { path };
        openat2(top, path, flags, Mode::empty(), ResolveFlags::IN_ROOT)
    };
    match open(path) {
        Err(Errno::NOENT) => {
            let (parent, name) = split(path);
            let parent = directory(top, parent)?;
            match mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => Ok(open(path)?),
                Err(error) => Err(error.into()),
            }
        }
        other => Ok(other?),
    }
}

fn make_directory(parent: &OwnedFd, name: &CString, mode: Mode) -> io::Result<()> {
    match mkdirat(parent, name, mode) {
        Ok(()) => {}
        Err(Errno::EXIST) if is_directory(parent, name)? => {}
        Err(Errno::EXIST) => {
            make_way(parent, name)?;
            mkdirat(parent, name, mode)?;
        }
        Err(error) => return Err(error.into()),
    }
    // Our own mask, and one that could not be looked into by the jail's user, are of no use.
    let made = tree::open_directory(parent, name)?;
    Ok(rustix::fs::fchmod(made, mode | Mode::RWXU)?)
}

fn is_directory(parent: &OwnedFd, name: &CString) -> io::Result<bool> {
    let mode = tree::look(parent, name)?.st_mode;
    Ok(FileType::from_raw_mode(mode) == FileType::Directory)
}

fn write(
    content: &mut impl Read,
    parent: &OwnedFd,
    name: &CString,
    mode: Mode,
    left: u64,
) -> Result<u64, UnpackError> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let mut file = std::fs::File::from(openat(parent, name, flags, mode).map_err(io::Error::from)?);
    let written = io::copy(&mut content.take(left.saturating_add(1)), &mut file)?;
    if written > left {
        return Err(UnpackError::TooMuch("bytes"));
    }
    rustix::fs::fchmod(&file, mode | Mode::RUSR).map_err(io::Error::from)?;
    Ok(written)
}

/// A hard link to a regular file that is there already; never to what a link points at.
fn link(top: &OwnedFd, target: &[u8], parent: &OwnedFd, name: &CString) -> io::Result<()> {
    let (directory_of, file) = split(target);
    let directory_of = directory(top, directory_of)?;
    let file = CString::new(file)?;
    let mode = tree::look(&directory_of, &file)?.st_mode;
    if FileType::from_raw_mode(mode) != FileType::RegularFile {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a hard link to what is no file"));
    }
    Ok(linkat(&directory_of, &file, parent, name, AtFlags::empty())?)
}

/// Removes what is there already: of two entries of one name, the later one counts.
fn make_way(parent: &OwnedFd, name: &CString) -> io::Result<()> {
    match tree::look(parent, name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(status) if FileType::from_raw_mode(status.st_mode) == FileType::Directory => {
            remove_tree(parent, name)
        }
        Ok(_) => Ok(unlinkat(parent, name, AtFlags::empty())?),
    }
}

fn remove(parent: &OwnedFd, gone: &[u8]) -> io::Result<()> {
    if gone == b".wh..opq" {
        for name in tree::names(parent.as_fd())? {
            make_way(parent, &name)?;
        }
        return Ok(());
    }
    make_way(parent, &CString::new(gone)?)
}

fn remove_tree(parent: &OwnedFd, name: &CString) -> io::Result<()> {
    let directory = tree::open_directory(parent, name)?;
    for child in tree::names(directory.as_fd())? {
        make_way(&directory, &child)?;
    }
    Ok(unlinkat(parent, name, AtFlags::REMOVEDIR)?)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tar::{Builder, Header};

    use super::*;

    const LIMITS: UnpackLimits = UnpackLimits { entries: 1000, bytes: 1 << 20 };

    /// Name, type, mode, and content or link's target.
    type Wish<'a> = (&'a str, EntryType, u32, &'a str);

    fn archive(wishes: &[Wish<'_>]) -> Vec<u8> {
        let mut builder = Builder::new(Vec::new());
        for (name, kind, mode, text) in wishes {
            let mut header = Header::new_gnu();
            // Written as it is: the library would refuse what we are here to see refused.
            header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_entry_type(*kind);
            header.set_mode(*mode);
            let is_link = matches!(kind, EntryType::Symlink | EntryType::Link);
            if is_link {
                let target = &mut header.as_gnu_mut().unwrap().linkname;
                target[..text.len()].copy_from_slice(text.as_bytes());
            }
            let content = if is_link { "" } else { text };
            header.set_size(content.len() as u64);
            header.set_cksum();
            builder.append(&header, content.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn unpacked(wishes: &[Wish<'_>]) -> (tempfile::TempDir, Result<Unpacked, UnpackError>) {
        let outer = tempfile::tempdir().unwrap();
        fs::create_dir(outer.path().join("in")).unwrap();
        fs::write(outer.path().join("outside"), "untouched").unwrap();
        let done = unpack(
            archive(wishes).as_slice(),
            &outer.path().join("in"),
            Whiteouts::Applied,
            LIMITS,
        );
        assert_eq!(fs::read_to_string(outer.path().join("outside")).unwrap(), "untouched");
        assert_eq!(fs::read_dir(outer.path()).unwrap().count(), 2, "nothing beside it");
        (outer, done)
    }

    const FILE: EntryType = EntryType::Regular;
    const LINK: EntryType = EntryType::Symlink;
    const HARD: EntryType = EntryType::Link;
    const DIRECTORY: EntryType = EntryType::Directory;

    #[test]
    fn what_leads_out_is_refused_and_what_leads_in_is_kept() {
        for wish in ["../outside", "a/../../outside", "a/..", ".wh...", "a/.wh..", "a/.wh."] {
            let (_outer, done) = unpacked(&[(wish, FILE, 0o644, "x")]);
            assert!(matches!(done, Err(UnpackError::Outside(_))), "{wish}");
        }
        let (outer, done) = unpacked(&[
            ("/absolute", FILE, 0o644, "in"),
            ("usr/lib/x", FILE, 0o644, "lib"),
            ("lib", LINK, 0, "usr/lib"),
            ("lib/y", FILE, 0o644, "through"),
            ("up", LINK, 0, "../.."),
            ("up/outside", FILE, 0o644, "inside after all"),
            ("etc", DIRECTORY, 0o755, ""),
            ("abs", LINK, 0, "/etc"),
            ("abs/passwd", FILE, 0o644, "ours"),
        ]);
        done.unwrap();
        let read = |path: &str| fs::read_to_string(outer.path().join("in").join(path)).unwrap();
        assert_eq!(read("absolute"), "in");
        assert_eq!(read("usr/lib/y"), "through");
        assert_eq!(read("outside"), "inside after all");
        assert_eq!(read("etc/passwd"), "ours");
    }

    #[test]
    fn hard_links_go_to_files_of_the_archive_only() {
        let (_outer, done) = unpacked(&[("s", LINK, 0, "/etc/passwd"), ("h", HARD, 0, "s")]);
        assert!(done.is_err(), "to a link");
        assert!(unpacked(&[("h", HARD, 0, "../outside")]).1.is_err());
        assert!(unpacked(&[("h", HARD, 0, "etc/passwd")]).1.is_err());
        let (outer, done) = unpacked(&[("a", FILE, 0o644, "x"), ("b", HARD, 0, "a")]);
        done.unwrap();
        assert_eq!(fs::read_to_string(outer.path().join("in/b")).unwrap(), "x");
    }

    #[test]
    fn bits_devices_names_twice_and_bombs() {
        use std::os::unix::fs::PermissionsExt as _;
        let (outer, done) = unpacked(&[
            ("su", FILE, 0o6755, "x"),
            ("fifo", EntryType::Fifo, 0o644, ""),
            ("dev", EntryType::Char, 0o644, ""),
            ("twice", FILE, 0o644, "first"),
            ("twice", FILE, 0o644, "second"),
            ("was", LINK, 0, "twice"),
            ("was", FILE, 0o644, "no link"),
            ("closed", DIRECTORY, 0, ""),
            ("closed/in", FILE, 0, "y"),
        ]);
        assert_eq!(done.unwrap().left_out, 2);
        let at = |path: &str| outer.path().join("in").join(path);
        assert_eq!(fs::metadata(at("su")).unwrap().permissions().mode() & 0o7777, 0o755);
        assert_eq!(fs::read_to_string(at("twice")).unwrap(), "second");
        assert_eq!(fs::read_to_string(at("was")).unwrap(), "no link");
        let big = "x".repeat(2 << 20);
        let bomb = unpacked(&[("big", FILE, 0o644, &big)]).1;
        assert!(matches!(bomb, Err(UnpackError::TooMuch("bytes"))));
        let many: Vec<Wish<'_>> = (0..1001).map(|_| ("n", FILE, 0o644, "")).collect();
        assert!(matches!(unpacked(&many).1, Err(UnpackError::TooMuch("entries"))));
    }

    #[test]
    fn whiteouts_take_away() {
        let (outer, done) = unpacked(&[
            ("a/x", FILE, 0o644, "x"),
            ("a/y", FILE, 0o644, "y"),
            ("b/z", FILE, 0o644, "z"),
            ("a/.wh.x", FILE, 0o644, ""),
            ("b/.wh..wh..opq", FILE, 0o644, ""),
            ("b/new", FILE, 0o644, "new"),
        ]);
        done.unwrap();
        let names = |path: &str| {
            let entries = fs::read_dir(outer.path().join("in").join(path)).unwrap();
            entries.map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>()
        };
        assert_eq!(names("a"), ["y"]);
        assert_eq!(names("b"), ["new"]);
    }
}
