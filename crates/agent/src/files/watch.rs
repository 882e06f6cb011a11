//! Changes in a directory, as they happen.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

use futures_util::Stream;
use rustix::fs::FileType;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;
use serde_json::json;
use tokio::io::unix::AsyncFd;

use super::list::each;
use super::root::{Root, about, by_descriptor, reopened};
use super::tree::open_directory;
use crate::blocking::watched;
use crate::events::Frame;

/// Directories that one watch follows.
const MOST: usize = 4096;
const DEEPEST: usize = 64;

/// What is told of.
const CHANGES: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF);

/// A watch. What it holds is gone when it is dropped.
#[derive(Debug)]
pub(super) struct Watch {
    inotify: AsyncFd<OwnedFd>,
    root: Root,
    /// Directories by the kernel's number for each. Not held open: the kernel tells of the end of one only
    /// when nobody has it.
    watched: HashMap<i32, Watched>,
    recursive: bool,
    full: bool,
}

#[derive(Debug)]
struct Watched {
    path: String,
    depth: usize,
}

impl Watch {
    /// Begins to watch. To be called off the async workers, but within the runtime.
    pub(super) fn begin(
        root: Root,
        directory: OwnedFd,
        path: &str,
        recursive: bool,
    ) -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let inotify = watched(inotify)?;
        let mut watch = Self { inotify, root, watched: HashMap::new(), recursive, full: false };
        watch.add(directory, path.to_owned(), 0)?;
        Ok(watch)
    }

    fn add(&mut self, directory: OwnedFd, path: String, depth: usize) -> io::Result<()> {
        if self.watched.len() >= MOST || depth > DEEPEST {
            self.full = true;
            return Ok(());
        }
        // By descriptor: the name may mean another directory by now.
        let number = inotify::add_watch(
            self.inotify.get_ref(),
            by_descriptor(&directory),
            CHANGES | WatchFlags::ONLYDIR,
        )?;
        if self.recursive {
            let mut inside = Vec::new();
            each(&reopened(&directory)?, &mut |name| {
                let found = about(directory.as_fd(), name)?;
                if found.is_some_and(|found| FileType::from_raw_mode(found.st_mode).is_dir()) {
                    inside.push(name.to_owned());
                }
                Ok(())
            })?;
            for name in inside {
                let below = format!("{}/{}", path.trim_end_matches('/'), name.to_string_lossy());
                if let Ok(opened) = open_directory(&directory, &name) {
                    self.add(opened, below, depth + 1)?;
                }
            }
        }
        self.watched.insert(number, Watched { path, depth });
        Ok(())
    }

    /// What has changed, when something has.
    async fn changes(&mut self) -> io::Result<Vec<Frame>> {
        loop {
            if self.watched.is_empty() {
                return Ok(Vec::new());
            }
            let mut ready = self.inotify.readable().await?;
            let mut buffer = [const { MaybeUninit::<u8>::uninit() }; 16 * 1024];
            let mut reader = Reader::new(self.inotify.get_ref(), &mut buffer);
            let (mut frames, mut fresh, mut gone) = (Vec::new(), Vec::new(), Vec::new());
            loop {
                let event = match reader.next() {
                    Ok(event) => event,
                    Err(Errno::AGAIN) => {
                        ready.clear_ready();
                        break;
                    }
                    Err(errno) => return Err(errno.into()),
                };
                let flags = event.events();
                if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
                    frames.push(Frame::of(
                        "gap",
                        &json!({ "message": "more changes than could be kept; look again" }),
                    ));
                    continue;
                }
                let Some(watched) = self.watched.get(&event.wd()) else { continue };
                let name =
                    event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()).to_owned());
                let is_directory = flags.contains(ReadFlags::ISDIR);
                let appeared = flags.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO);
                if let (true, true, true, Some(name)) =
                    (self.recursive, is_directory, appeared, &name)
                {
                    fresh.push((event.wd(), name.clone()));
                }
                if flags.contains(ReadFlags::IGNORED) {
                    gone.push(event.wd());
                    continue;
                }
                let path = match &name {
                    Some(name) => {
                        format!("{}/{}", watched.path.trim_end_matches('/'), name.to_string_lossy())
                    }
                    None => watched.path.clone(),
                };
                let entry_type = if is_directory { "directory" } else { "file" };
                let change = json!({ "kind": told(flags), "path": path, "entryType": entry_type });
                frames.push(Frame::of("change", &change));
                if reader.is_buffer_empty() {
                    break;
                }
            }
            for (number, name) in fresh {
                self.follow(number, &name);
            }
            for number in gone {
                self.watched.remove(&number);
            }
            if !frames.is_empty() {
                return Ok(frames);
            }
        }
    }

    /// Watches a directory that has appeared in one that is watched.
    fn follow(&mut self, number: i32, name: &OsStr) {
        let Some(parent) = self.watched.get(&number) else { return };
        let path = format!("{}/{}", parent.path.trim_end_matches('/'), name.to_string_lossy());
        let depth = parent.depth + 1;
        let opened = self.root.place(&path).and_then(|place| self.root.directory(&place));
        if let Ok(opened) = opened {
            // It may have gone again; then there is nothing to tell of it.
            drop(self.add(opened, path, depth));
        }
    }

    /// The changes as events. Ends when what is watched is gone.
    pub(super) fn frames(self) -> impl Stream<Item = Vec<Frame>> + Send {
        let ready = json!({ "path": self.top(), "directories": self.watched.len(), "complete": !self.full });
        let first = vec![Frame::of("ready", &ready)];
        futures_util::stream::unfold((self, Some(first)), |(mut watch, first)| async move {
            if let Some(first) = first {
                return Some((first, (watch, None)));
            }
            match watch.changes().await {
                Ok(frames) if frames.is_empty() => None,
                Ok(frames) => Some((frames, (watch, None))),
                Err(error) => {
                    tracing::warn!(%error, "a watch broke off");
                    None
                }
            }
        })
    }

    fn top(&self) -> Option<&str> {
        self.watched
            .values()
            .find(|watched| watched.depth == 0)
            .map(|watched| watched.path.as_str())
    }
}

fn told(flags: ReadFlags) -> &'static str {
    if flags.intersects(ReadFlags::CREATE) {
        "created"
    } else if flags.intersects(ReadFlags::DELETE | ReadFlags::DELETE_SELF) {
        "deleted"
    } else if flags.intersects(ReadFlags::MOVED_FROM) {
        "movedFrom"
    } else if flags.intersects(ReadFlags::MOVED_TO) {
        "movedTo"
    } else if flags.intersects(ReadFlags::MOVE_SELF) {
        "moved"
    } else if flags.intersects(ReadFlags::ATTRIB) {
        "attributes"
    } else {
        "modified"
    }
}
