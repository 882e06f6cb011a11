//! Blank jails that wait, by shape.
//!
//! ```text
//!   a request of some shape ──▶ a blank of that shape, if there is one; made cold if not
//!          │
//!          └──▶ the shape is remembered; when the launcher has had nothing to do for a moment,
//!               blanks are made until each remembered shape has its share
//! ```
//!
//! A blank is used once, by the host user its shape names, and never comes back.

use std::fs;
use std::path::Path;

use rustix::process::Pid;

use crate::birth::Blank;
use crate::message::{Limits, Pool as Settings};
use crate::shape::Shape;

/// Shapes remembered at most: those used last.
const MOST_SHAPES: usize = 8;

/// Blanks by shape, the shape used last first.
pub(crate) struct Pool {
    settings: Settings,
    slots: Vec<Slot>,
}

struct Slot {
    shape: Shape,
    /// Those of the last jail of this shape: likely those of the next.
    limits: Limits,
    blanks: Vec<Blank>,
}

impl Pool {
    pub(crate) fn new(settings: Settings) -> Self {
        Self { settings, slots: Vec::new() }
    }

    /// Remembers a shape as the one used last; gives the blanks of a shape that is forgotten for it.
    pub(crate) fn remember(&mut self, shape: &Shape, limits: &Limits) -> Vec<Blank> {
        if self.settings.size == 0 {
            return Vec::new();
        }
        let known = self.slots.iter().position(|slot| slot.shape == *shape);
        let mut slot = match known {
            Some(at) => self.slots.remove(at),
            None => Slot { shape: shape.clone(), limits: *limits, blanks: Vec::new() },
        };
        slot.limits = *limits;
        self.slots.insert(0, slot);
        let most = MOST_SHAPES.min(self.size());
        let forgotten = self.slots.drain(most.min(self.slots.len())..);
        let mut surplus: Vec<Blank> = forgotten.flat_map(|slot| slot.blanks).collect();
        // A new shape makes the shares smaller.
        let share = self.share();
        for slot in &mut self.slots {
            let keep = share.min(slot.blanks.len());
            surplus.extend(slot.blanks.drain(keep..));
        }
        surplus
    }

    /// Takes a blank out.
    pub(crate) fn take(&mut self, shape: &Shape) -> Option<Blank> {
        self.slots.iter_mut().find(|slot| slot.shape == *shape)?.blanks.pop()
    }

    /// A shape that has less than its share.
    pub(crate) fn wanted(&self) -> Option<(Shape, Limits)> {
        let share = self.share();
        let slot = self.slots.iter().find(|slot| slot.blanks.len() < share)?;
        Some((slot.shape.clone(), slot.limits))
    }

    /// Puts a blank in.
    pub(crate) fn put(&mut self, shape: &Shape, blank: Blank) {
        if let Some(slot) = self.slots.iter_mut().find(|slot| slot.shape == *shape) {
            slot.blanks.push(blank);
        }
    }

    /// Forgets a shape whose blanks cannot be made, and gives those there are.
    pub(crate) fn give_up(&mut self, shape: &Shape) -> Vec<Blank> {
        let Some(at) = self.slots.iter().position(|slot| slot.shape == *shape) else {
            return Vec::new();
        };
        self.slots.remove(at).blanks
    }

    /// Takes out a blank that has died.
    pub(crate) fn bury(&mut self, pid: Pid) -> Option<Blank> {
        self.slots.iter_mut().find_map(|slot| {
            let at = slot.blanks.iter().position(|blank| blank.pid == pid)?;
            Some(slot.blanks.remove(at))
        })
    }

    /// Takes all blanks out; the shapes stay remembered.
    pub(crate) fn drain(&mut self) -> Vec<Blank> {
        self.slots.iter_mut().flat_map(|slot| slot.blanks.drain(..)).collect()
    }

    pub(crate) fn count(&self) -> u64 {
        self.slots.iter().map(|slot| slot.blanks.len() as u64).sum()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count() == 0
    }

    /// Whether the machine is too short of memory to keep any.
    pub(crate) fn is_under_pressure(&self, root: &Path) -> bool {
        let text = fs::read_to_string(root.join("proc/meminfo")).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
        let kibibytes =
            line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
        // A kernel that does not say is not under pressure.
        kibibytes.is_some_and(|available| available * 1024 < self.settings.reserve_bytes)
    }

    fn size(&self) -> usize {
        usize::try_from(self.settings.size).unwrap_or(usize::MAX)
    }

    fn share(&self) -> usize {
        self.size() / self.slots.len().max(1)
    }
}
