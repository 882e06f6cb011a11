//! The host's directories that a jail is given, as mounts that can be moved into it.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::process::Signal;
use sys::{Birth, MountAttributes, Namespaces, Reach, Side};

use super::{Birthplace, Mapping, Owner, kill, write_map};
use crate::message::{Access, At as _, Fault, Layers, MOST_LAYERS, Spec, Tree};
use crate::{fault, template};

/// Owners remembered; a server gives its jails directories of one or two.
const MAX_OWNER_MAPS: usize = 16;

impl Birthplace {
    /// Detached copies of the host directories a spec names: image, workspace, output, flavors, layers.
    pub(super) fn trees(&self, spec: &Spec) -> Result<Vec<OwnedFd>, Fault> {
        let owner = if self.root { (spec.host_id, spec.host_id) } else { self.own };
        let mut trees = Vec::new();
        if let Some(image) = &spec.image {
            trees.push(self.host_tree(image, Access::ReadOnly, owner)?);
        }
        for tree in [&spec.workspace, &spec.output] {
            if let Tree::Host { path, access } = tree {
                trees.push(self.host_tree(path, *access, owner)?);
            }
        }
        for (_, path) in &spec.flavors {
            trees.push(self.host_tree(path, Access::ReadOnly, owner)?);
        }
        if let Some(Layers { lower, upper, .. }) = &spec.layers {
            if lower.len() > MOST_LAYERS {
                return Err(rustix::io::Errno::TOOBIG).at("mount the layers");
            }
            // Its owner is whoever keeps it; the trees in it are the jail's.
            trees.push(Self::as_it_is(upper, Access::ReadWrite)?);
            for path in lower {
                trees.push(Self::as_it_is(path, Access::ReadOnly)?);
            }
        }
        Ok(trees)
    }

    /// A detached copy of a directory, with its owners as they are.
    fn as_it_is(path: &Path, access: Access) -> Result<OwnedFd, Fault> {
        fault::inject("tree")?;
        let tree = template::detached(path)?;
        let mut restrictions = MountAttributes::NO_SUID.and(MountAttributes::NO_DEVICES);
        if access == Access::ReadOnly {
            restrictions = restrictions.and(MountAttributes::READ_ONLY);
        }
        sys::restrict_mount(&tree, restrictions, Reach::One)
            .at(format!("restrict the mount of {}", path.display()))?;
        Ok(tree)
    }

    fn host_tree(&self, path: &Path, access: Access, jail: Owner) -> Result<OwnedFd, Fault> {
        let tree = Self::as_it_is(path, access)?;
        let status = rustix::fs::fstat(&tree).at("look at a directory")?;
        let owner = (status.st_uid, status.st_gid);
        // Without root a mount cannot be mapped: then the files must be the user's own as they are.
        let fits = if self.root { owner == jail } else { owner.0 == jail.0 };
        if !fits {
            let mapped = self.owner_map((owner, jail)).and_then(|map| {
                sys::map_owner(&tree, &map).at(format!(
                    "give the jail's user the files of {} (they belong to somebody else)",
                    path.display()
                ))
            });
            // Without the mapping a read-only tree still shows what all may read.
            if access == Access::ReadWrite {
                mapped?;
            }
        }
        Ok(tree)
    }

    /// A user namespace that maps a directory's owner to a jail's user, for an id-mapped mount.
    fn owner_map(&self, mapping: Mapping) -> Result<OwnedFd, Fault> {
        let mut maps = self.owner_maps.borrow_mut();
        if let Some((_, map)) = maps.iter().find(|(known, _)| *known == mapping) {
            return map.try_clone().at("copy a descriptor");
        }
        let (owner, jail) = mapping;
        let birth = Birth { namespaces: Namespaces::USER, cgroup: None };
        let launcher = rustix::process::getpid();
        let (pid, child) = match sys::clone3(&birth).at("clone into a user namespace")? {
            Side::Child => loop {
                // Doors among them, by which inits know that we are there.
                drop(sys::close_all_but(&[]));
                let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
                if rustix::process::getppid() != Some(launcher) {
                    sys::exit(1);
                }
                // Holds the namespace until its parent has it, and has killed us.
                let _ = rustix::event::poll(&mut [], None);
            },
            Side::Parent { pid, child } => (pid, child),
        };
        let opened = write_map(pid, "uid_map", owner.0, jail.0)
            .and_then(|()| write_map(pid, "gid_map", owner.1, jail.1))
            .and_then(|()| {
                let path = format!("/proc/{pid}/ns/user");
                openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                    .at("open a user namespace")
            });
        kill(&child);
        let opened = opened?;
        if maps.len() == MAX_OWNER_MAPS {
            maps.remove(0);
        }
        maps.push((mapping, opened.try_clone().at("copy a descriptor")?));
        Ok(opened)
    }
}
