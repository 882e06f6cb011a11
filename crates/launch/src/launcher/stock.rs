//! Blanks and spares: made when nobody waits, let go of when they are not wanted.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Instant;

use rustix::process::{Pid, Signal, pidfd_send_signal};

use crate::birth::{Blank, Spare};
use crate::cgroup::Group;
use crate::template;

use super::{LOOK, Launcher, Ward};

impl Launcher {
    /// Makes one blank, if one is wanted and nobody else wants us; or gives all up when the machine
    /// is short of memory.
    pub(super) fn tend_pool(&mut self) {
        if self.looked.elapsed() >= LOOK {
            self.looked = Instant::now();
            if !self.pool.is_empty() && self.pool.is_under_pressure(Path::new(template::HOST)) {
                let spares = self.pool.give_up_spares();
                self.retire_spares(spares);
                let all = self.pool.drain();
                return self.retire(all);
            }
        }
        if !self.is_pause() && !self.pool.is_dry() {
            return;
        }
        let Some((shape, limits)) = self.pool.wanted() else {
            return self.tend_spares();
        };
        if self.pool.is_under_pressure(Path::new(template::HOST)) {
            // Not asked again before the next request.
            let none = self.pool.give_up(&shape);
            return self.retire(none);
        }
        match self.blank(&shape, &limits) {
            Ok(blank) => {
                find_counters(blank.group.as_ref());
                self.pool.put(&shape, blank);
            }
            Err(fault) => {
                eprintln!("launcher: no blank jail: {fault}");
                let rest = self.pool.give_up(&shape);
                self.retire(rest);
            }
        }
    }

    /// Makes one spare, if one is wanted.
    fn tend_spares(&mut self) {
        let Some((network, limits)) = self.pool.wanted_spare() else { return };
        if self.pool.is_under_pressure(Path::new(template::HOST)) {
            let spares = self.pool.give_up_spares();
            return self.retire_spares(spares);
        }
        match self.spare(&network) {
            Ok(mut spare) => {
                if let (Some(driver), Some(group)) = (&self.driver, &mut spare.group) {
                    // Set again when it has a shape, if they differ; an error will show then.
                    drop(driver.limit(group, &limits));
                }
                find_counters(spare.group.as_ref());
                self.pool.put_spare(spare);
            }
            Err(fault) => {
                eprintln!("launcher: no spare: {fault}");
                let spares = self.pool.give_up_spares();
                self.retire_spares(spares);
            }
        }
    }

    /// Ends blanks that are not wanted any more; they are reaped with the rest.
    pub(super) fn retire(&mut self, blanks: Vec<Blank>) {
        for Blank { pid, init, group, .. } in blanks {
            self.dismiss(pid, init, group);
        }
    }

    /// The same for spares.
    pub(super) fn retire_spares(&mut self, spares: Vec<Spare>) {
        for Spare { pid, init, group, .. } in spares {
            self.dismiss(pid, init, group);
        }
    }

    fn dismiss(&mut self, pid: Pid, init: OwnedFd, group: Option<Group>) {
        // An error means that it is dead already.
        let _ = pidfd_send_signal(&init, Signal::KILL);
        self.jails.insert(pid, Ward { init, group, _call: None });
    }
}

/// Whoever reads the counters at a command's end shall find their files there.
fn find_counters(group: Option<&Group>) {
    if let Some(group) = group {
        group.find_counters(Path::new(template::HOST));
    }
}
