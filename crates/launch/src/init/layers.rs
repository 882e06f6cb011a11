//! The overlay of a workspace: mounted by init, in the jail's own namespaces, as the jail's user.
//!
//! It stands aside for as long as it takes to move its parts to `/workspace`, `/output` and home. What it
//! was made of is not to be seen from inside.

use std::ffi::CString;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{MountFlags, OpenTreeFlags, UnmountFlags, mount, open_tree, unmount};
use sys::{MountAttributes, Reach, restrict_mount};

use super::house::{mount_tmpfs, move_in};
use crate::fault;
use crate::message::{Access, At as _, Fault, Layers, Spec, Tree};

/// Where the parts stand meanwhile: covered again by what belongs there. The name is short because
/// all of them must fit in one page of mount options.
const ASIDE: &str = "/output";

/// Mounts the overlay, and its halves where the spec wants them.
pub(super) fn attach(
    spec: &Spec,
    layers: &Layers,
    mut trees: impl Iterator<Item = OwnedFd>,
) -> Result<(), Fault> {
    fault::inject("layers")?;
    mount_tmpfs(ASIDE, 1 << 20, 0o700, MountFlags::empty())?;
    let mut next = || trees.next().ok_or(Errno::BADF).at("find the layers");
    place(&next()?, "u")?;
    let mut lower = String::new();
    for n in 0..layers.lower.len() {
        place(&next()?, &n.to_string())?;
        let separator = if n == 0 { "" } else { ":" };
        // Writing to a string cannot fail.
        let _ = write!(lower, "{separator}{ASIDE}/{n}");
    }
    if lower.is_empty() {
        // The kernel wants one.
        make("empty")?;
        lower = format!("{ASIDE}/empty");
    }
    make("all")?;
    let options =
        format!("userxattr,lowerdir={lower},upperdir={ASIDE}/u/files,workdir={ASIDE}/u/work");
    let options = CString::new(options).map_err(|_| Errno::INVAL).at("write mount options")?;
    let whole = format!("{ASIDE}/all");
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    mount("overlay", &whole, "overlay", flags, options.as_c_str()).at("mount the layers")?;
    let mut halves = Vec::new();
    for (name, tree) in [("workspace", &spec.workspace), ("output", &spec.output)] {
        if let Tree::Layered { access } = tree {
            halves.push((name, half(&format!("{whole}/{name}"), *access)?));
        }
    }
    if layers.home {
        halves.push(("home/agent", home(&format!("{whole}/home"))?));
    }
    // The overlay holds on to its parts by itself.
    unmount(ASIDE, UnmountFlags::DETACH).at("put the layers away")?;
    halves.iter().try_for_each(|(name, half)| move_in(half, &format!("/{name}")))
}

/// The home directory of whoever lives here for longer than a command.
fn home(path: &str) -> Result<OwnedFd, Fault> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(error).at(format!("make {path}"))
        }
        _ => half(path, Access::ReadWrite),
    }
}

fn place(tree: &OwnedFd, name: &str) -> Result<(), Fault> {
    make(name)?;
    move_in(tree, &format!("{ASIDE}/{name}"))
}

fn make(name: &str) -> Result<(), Fault> {
    fs::create_dir(format!("{ASIDE}/{name}")).at("make room for the layers")
}

fn half(path: &str, access: Access) -> Result<OwnedFd, Fault> {
    let mode = fs::symlink_metadata(path).at(format!("find {path}"))?.mode();
    if mode & 0o700 != 0o700 {
        // A former command shut itself out: the next one could not even be started there.
        let open = fs::Permissions::from_mode((mode & 0o7777) | 0o700);
        fs::set_permissions(path, open).at(format!("open {path}"))?;
    }
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let half = open_tree(CWD, path, flags).at(format!("find {path}"))?;
    if access == Access::ReadOnly {
        restrict_mount(&half, MountAttributes::READ_ONLY, Reach::One)
            .at(format!("close {path}"))?;
    }
    Ok(half)
}
