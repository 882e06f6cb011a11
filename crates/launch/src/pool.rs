//! Blank jails that wait, by shape.
//!
//! ```text
//!   a request of some shape ──▶ a blank of that shape, if there is one; made cold if not
//!          │
//!          └──▶ the shape is remembered; when the launcher has had nothing to do for a moment,
//!               blanks are made until each remembered shape has its share
//! ```
//!
//! A shape that has none left gets one as soon as nobody waits: who starts one jail after the other shall not find
//! all of them cold that come after the last blank.
//!
//! A blank is used once, by the host user its shape names, and never comes back. The same goes for *spares*,
//! which have no shape yet, and may become anybody's: they make a cold start less so.

use std::fs;
use std::path::Path;

use rustix::process::Pid;

use crate::birth::{Blank, Spare};
use crate::cgroup::Group;
use crate::message::{Limits, Network, Pool as Settings};
use crate::shape::Shape;

/// Shapes remembered at most: those used last.
const MOST_SHAPES: usize = 8;

/// Networks remembered at most: one with an allowlist, and one without.
const MOST_NETWORKS: usize = 2;

/// Blanks by shape, the shape used last first.
pub(crate) struct Pool {
    settings: Settings,
    slots: Vec<Slot>,
    /// Networks used last, the last first.
    networks: Vec<Wanted>,
    spares: Vec<Spare>,
}

/// A network that spares are kept for.
struct Wanted {
    network: Network,
    /// Those of the last jail that had it: likely those of the next.
    limits: Limits,
    /// One of them died: none is made before it is used again.
    on_hold: bool,
}

struct Slot {
    shape: Shape,
    /// Those of the last jail of this shape: likely those of the next.
    limits: Limits,
    blanks: Vec<Blank>,
    /// As of a network.
    on_hold: bool,
    /// Whether it was used before, and not only now.
    used_again: bool,
}

impl Pool {
    pub(crate) fn new(settings: Settings) -> Self {
        Self { settings, slots: Vec::new(), networks: Vec::new(), spares: Vec::new() }
    }

    /// Remembers a shape as the one used last; gives the blanks of a shape that is forgotten for it.
    pub(crate) fn remember(&mut self, shape: &Shape, limits: &Limits) -> Vec<Blank> {
        if self.settings.size == 0 {
            return Vec::new();
        }
        let known = self.slots.iter().position(|slot| slot.shape == *shape);
        let mut slot = match known {
            Some(at) => self.slots.remove(at),
            None => Slot {
                shape: shape.clone(),
                limits: *limits,
                blanks: Vec::new(),
                on_hold: false,
                used_again: false,
            },
        };
        slot.limits = *limits;
        slot.on_hold = false;
        slot.used_again = known.is_some();
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

    /// Remembers a network as the one used last; gives the spares of one that is forgotten for it.
    pub(crate) fn remember_network(&mut self, network: &Network, limits: &Limits) -> Vec<Spare> {
        if self.settings.spares == 0 {
            return Vec::new();
        }
        if let Some(last) = self.networks.first_mut()
            && last.network == *network
        {
            (last.limits, last.on_hold) = (*limits, false);
            return Vec::new();
        }
        self.networks.retain(|known| known.network != *network);
        let wanted = Wanted { network: network.clone(), limits: *limits, on_hold: false };
        self.networks.insert(0, wanted);
        self.networks.truncate(MOST_NETWORKS);
        let is_known =
            |spare: &Spare| self.networks.iter().any(|known| known.network == spare.network);
        let mut surplus: Vec<Spare> =
            self.spares.extract_if(.., |spare| !is_known(spare)).collect();
        // A new network makes the shares smaller.
        let share = self.spares_share();
        for known in &self.networks {
            let mut kept = 0;
            surplus.extend(self.spares.extract_if(.., |spare| {
                let of_it = spare.network == known.network;
                kept += usize::from(of_it);
                of_it && kept > share
            }));
        }
        surplus
    }

    /// Takes a spare out.
    pub(crate) fn take_spare(&mut self, network: &Network) -> Option<Spare> {
        let at = self.spares.iter().position(|spare| spare.network == *network)?;
        Some(self.spares.swap_remove(at))
    }

    /// A network that has less than its share of spares.
    pub(crate) fn wanted_spare(&self) -> Option<(Network, Limits)> {
        let share = self.spares_share();
        let have = |known: &Wanted| {
            self.spares.iter().filter(|spare| spare.network == known.network).count()
        };
        let lacking = self.networks.iter().find(|known| !known.on_hold && have(known) < share)?;
        Some((lacking.network.clone(), lacking.limits))
    }

    /// Puts a spare in.
    pub(crate) fn put_spare(&mut self, spare: Spare) {
        self.spares.push(spare);
    }

    /// Forgets all networks, and gives the spares there are.
    pub(crate) fn give_up_spares(&mut self) -> Vec<Spare> {
        self.networks.clear();
        std::mem::take(&mut self.spares)
    }

    /// Takes a blank out.
    pub(crate) fn take(&mut self, shape: &Shape) -> Option<Blank> {
        self.slots.iter_mut().find(|slot| slot.shape == *shape)?.blanks.pop()
    }

    /// A shape that has less than its share.
    pub(crate) fn wanted(&self) -> Option<(Shape, Limits)> {
        let share = self.share();
        let slot = self.slots.iter().find(|slot| !slot.on_hold && slot.blanks.len() < share)?;
        Some((slot.shape.clone(), slot.limits))
    }

    /// Whether the shape used last, and not for the first time, has no blank left: the next jail of it would be cold.
    pub(crate) fn is_dry(&self) -> bool {
        let is_dry = |slot: &Slot| slot.used_again && !slot.on_hold && slot.blanks.is_empty();
        self.share() > 0 && self.slots.first().is_some_and(is_dry)
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

    /// Takes out a blank or a spare that has died; gives its group. No other is made in its place before there is a
    /// request: it might die as well, and so on.
    pub(crate) fn bury(&mut self, pid: Pid) -> Option<Group> {
        if let Some(at) = self.spares.iter().position(|spare| spare.pid == pid) {
            let dead = self.spares.swap_remove(at);
            for known in self.networks.iter_mut().filter(|known| known.network == dead.network) {
                known.on_hold = true;
            }
            return dead.group;
        }
        self.slots.iter_mut().find_map(|slot| {
            let at = slot.blanks.iter().position(|blank| blank.pid == pid)?;
            slot.on_hold = true;
            slot.blanks.remove(at).group
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
        self.count() == 0 && self.spares.is_empty()
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

    fn spares_share(&self) -> usize {
        let most = usize::try_from(self.settings.spares).unwrap_or(usize::MAX);
        most / self.networks.len().max(1)
    }

    fn share(&self) -> usize {
        self.size() / self.slots.len().max(1)
    }
}
