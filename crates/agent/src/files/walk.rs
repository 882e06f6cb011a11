//! Looking a path up below a directory, which nothing in it leads out of: by the kernel, or step by step where the
//! kernel's own way is closed (the filter of a jail knows no `openat2`, whose mode is in memory).

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Component, Path};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2, readlinkat};
use rustix::io::Errno;

/// Links that are followed on one way.
const MOST_LINKS: usize = 40;

/// How often a look-up is tried again that was given up because somebody renamed beside it.
const TRIES: usize = 128;

/// What a link that begins at `/` means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Absolute {
    /// It begins at the directory.
    FromTop,
    /// It leads out.
    Outside,
}

impl Absolute {
    fn resolve(self) -> ResolveFlags {
        let beneath = match self {
            Self::FromTop => ResolveFlags::IN_ROOT,
            Self::Outside => ResolveFlags::BENEATH,
        };
        beneath | ResolveFlags::NO_MAGICLINKS
    }
}

/// Opens what lies at a relative path. `EXDEV` says that the way leads out.
pub(super) fn open(
    top: impl AsFd,
    path: &Path,
    flags: OFlags,
    absolute: Absolute,
) -> rustix::io::Result<OwnedFd> {
    static CLOSED: AtomicBool = AtomicBool::new(false);
    let flags = flags | OFlags::CLOEXEC;
    if !CLOSED.load(Ordering::Relaxed) {
        match again(|| openat2(&top, path, flags, Mode::empty(), absolute.resolve())) {
            Err(Errno::NOSYS) => CLOSED.store(true, Ordering::Relaxed),
            done => return done,
        }
    }
    again(|| step_by_step(top.as_fd(), path, flags, absolute))
}

/// The same, if the kernel has all it needs for that in memory.
pub(super) fn open_at_hand(
    top: impl AsFd,
    path: &Path,
    flags: OFlags,
    absolute: Absolute,
) -> Option<OwnedFd> {
    let resolve = absolute.resolve() | ResolveFlags::CACHED;
    openat2(top, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve).ok()
}

fn again(act: impl Fn() -> rustix::io::Result<OwnedFd>) -> rustix::io::Result<OwnedFd> {
    for _ in 0..TRIES {
        match act() {
            Err(Errno::AGAIN) => {}
            done => return done,
        }
    }
    Err(Errno::BUSY)
}

/// Each directory is opened by its name in the one before, and `..` is the one that we came from: whatever is
/// renamed meanwhile, there is no way above the top.
fn step_by_step(
    top: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
    absolute: Absolute,
) -> rustix::io::Result<OwnedFd> {
    let mut way: Vec<OwnedFd> = Vec::new();
    let mut rest = parts(path);
    let mut links = 0;
    while let Some(name) = rest.pop() {
        if name == ".." {
            if way.pop().is_none() && absolute == Absolute::Outside {
                return Err(Errno::XDEV);
            }
            continue;
        }
        let here = way.last().map_or(top, AsFd::as_fd);
        let look = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let found = openat(here, &name, look, Mode::empty())?;
        let is_link = FileType::from_raw_mode(fstat(&found)?.st_mode).is_symlink();
        if is_link && !(rest.is_empty() && flags.contains(OFlags::NOFOLLOW)) {
            links += 1;
            if links > MOST_LINKS {
                return Err(Errno::LOOP);
            }
            let target = OsString::from_vec(readlinkat(&found, "", Vec::new())?.into_bytes());
            let target = Path::new(&target);
            if target.is_absolute() {
                if absolute == Absolute::Outside {
                    return Err(Errno::XDEV);
                }
                way.clear();
            }
            rest.extend(parts(target));
        } else if rest.is_empty() {
            // By its name, and only if it is still what it was: a link in its place is looked at anew.
            return match openat(here, &name, flags | OFlags::NOFOLLOW, Mode::empty()) {
                Err(Errno::LOOP) if !is_link => Err(Errno::AGAIN),
                opened => opened,
            };
        } else {
            way.push(found);
        }
    }
    // The top itself, or where `..` led back to.
    openat(way.last().map_or(top, AsFd::as_fd), ".", flags, Mode::empty())
}

/// The parts of a path, the first one last.
fn parts(path: &Path) -> Vec<OsString> {
    let parts = path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    });
    let mut parts: Vec<OsString> = parts.collect();
    // What ends with a slash must be a directory.
    if path.as_os_str().as_bytes().ends_with(b"/") && !parts.is_empty() {
        parts.push(OsStr::new(".").to_owned());
    }
    parts.reverse();
    parts
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// Both ways give the same for every spelling.
    #[test]
    fn step_by_step_is_as_the_kernel_does_it() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join("top").join(name);
        std::fs::create_dir_all(at("a/b/c")).unwrap();
        std::fs::write(at("a/file"), "f").unwrap();
        std::fs::write(directory.path().join("outside"), "o").unwrap();
        symlink("a/b", at("link")).unwrap();
        symlink("../../../outside", at("a/b/out")).unwrap();
        symlink("/a/file", at("absolute")).unwrap();
        symlink("loop", at("loop")).unwrap();
        symlink("nowhere", at("broken")).unwrap();
        symlink("../link/c", at("a/chain")).unwrap();
        symlink("/etc/passwd", at("elsewhere")).unwrap();
        let top = std::fs::File::open(directory.path().join("top")).unwrap();
        let paths = [
            ".",
            "a",
            "a/",
            "a/file",
            "a/file/",
            "a/file/x",
            "a/..",
            "a/../a/file",
            "..",
            "a/../../outside",
            "link",
            "link/c",
            "link/..",
            "link/../file",
            "a/b/out",
            "absolute",
            "loop",
            "broken",
            "broken/x",
            "a/chain",
            "a/chain/..",
            "elsewhere",
            "none",
            "none/x",
            "a/b/../../..",
        ];
        let flags = [
            OFlags::RDONLY,
            OFlags::PATH,
            OFlags::PATH | OFlags::DIRECTORY,
            OFlags::PATH | OFlags::NOFOLLOW,
        ];
        for absolute in [Absolute::FromTop, Absolute::Outside] {
            for (path, flags) in paths.iter().flat_map(|path| flags.map(|flags| (path, flags))) {
                let path = Path::new(path);
                let told = |opened: rustix::io::Result<OwnedFd>| {
                    opened.map(|opened| fstat(&opened).unwrap().st_ino)
                };
                let kernel = openat2(&top, path, flags, Mode::empty(), absolute.resolve());
                let ours = step_by_step(top.as_fd(), path, flags, absolute);
                assert_eq!(told(ours), told(kernel), "{path:?} {flags:?} {absolute:?}");
            }
        }
    }
}
