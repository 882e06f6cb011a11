//! The jail's file system: the shared template, and on top of it what is this jail's own.

use std::ffi::CString;
use std::fs;
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MoveMountFlags, OpenTreeFlags, mount, mount_bind, move_mount, open_tree,
};
use sys::{MountAttributes, Reach, restrict_mount};

use super::{image, layers, stage};
use crate::fault;
use crate::message::{Access, At as _, Fault, Spec, Tree};
use crate::shape::{Ground, Shape};
use mutation::{Protection, keeps};

/// Size of `/dev/shm`, and of the home directory: memory, which the jail's limit counts.
const SHARED_MEMORY_BYTES: u64 = 64 << 20;
const HOME_BYTES: u64 = 256 << 20;

/// What tells of the machine or its other users, or acts on it. Most of it is closed to the jail's
/// user anyway; each cover costs some 10 µs of every start, so what shows nothing is left alone.
const MASKED_FILES: [&str; 12] = [
    "cmdline",
    "config.gz",
    "iomem",
    "kallsyms",
    "kcore",
    "key-users",
    "keys",
    "latency_stats",
    "partitions",
    "sched_debug",
    "sysrq-trigger",
    "timer_list",
];
const MASKED_DIRECTORIES: [&str; 4] = ["acpi", "bus", "irq", "scsi"];

/// Mounts what every jail has, and what belongs to nobody inside, onto the template, which is the root it was
/// born with.
pub(super) fn begin() -> Result<(), Fault> {
    fault::inject("proc")?;
    proc()
}

/// Mounts what every jail of a shape has.
pub(super) fn build(shape: &Shape) -> Result<(), Fault> {
    fault::inject("mounts")?;
    let pts = c"newinstance,ptmxmode=0666,mode=620,max=64";
    let quiet = MountFlags::NOSUID | MountFlags::NOEXEC;
    mount("devpts", "/dev/pts", "devpts", quiet, pts).at("mount /dev/pts")?;
    let no_exec = if keeps(Protection::NoExec) { MountFlags::NOEXEC } else { MountFlags::empty() };
    tmpfs("dev/shm", SHARED_MEMORY_BYTES, 0o1777, no_exec)?;
    tmpfs("tmp", shape.tmp, 0o1777, no_exec)?;
    tmpfs("home/agent", HOME_BYTES, 0o700, MountFlags::empty())?;
    for (name, place) in [("workspace", shape.workspace), ("output", shape.output)] {
        if let Ground::Fresh(bytes) = place.ground {
            tmpfs(name, bytes, 0o755, MountFlags::empty())?;
        }
    }
    Ok(())
}

/// Closes the fresh trees of a shape that may not be written to. Gives, if there is code to come, a way
/// to put it into the workspace all the same: a mount of it that nothing else knows.
pub(super) fn finish(shape: &Shape) -> Result<Option<OwnedFd>, Fault> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let way = || open_tree(CWD, "/workspace", flags).at("open /workspace");
    let way = shape.code.then(way).transpose()?;
    for (name, place) in [("workspace", shape.workspace), ("output", shape.output)] {
        if place.access == Access::ReadOnly {
            close(name)?;
        }
    }
    Ok(way)
}

/// Brings in what is one jail's own: the host's directories, flavors, the code.
pub(super) fn attach(spec: &Spec, trees: Vec<OwnedFd>, code: Option<OwnedFd>) -> Result<(), Fault> {
    let mut trees = trees.into_iter();
    if spec.image.is_some() {
        image::enter(&trees.next().ok_or(Errno::BADF).at("find the image")?)?;
    }
    for (name, tree) in [("workspace", &spec.workspace), ("output", &spec.output)] {
        if let Tree::Host { .. } = tree {
            let tree = trees.next().ok_or(Errno::BADF).at(format!("find /{name}"))?;
            move_in(&tree, &format!("/{name}"))?;
        }
    }
    flavors(spec, &mut trees)?;
    if let Some(layers) = &spec.layers {
        layers::attach(spec, layers, trees)?;
    }
    if let (Some(name), Some(code)) = (&spec.code, code) {
        write_code(name, code)?;
    }
    for (name, tree) in [("workspace", &spec.workspace), ("output", &spec.output)] {
        if let Tree::Fresh { access: Access::ReadOnly, .. } = tree {
            close(name)?;
        }
    }
    Ok(())
}

/// A `/proc` of this PID namespace, without what is the machine's.
fn proc() -> Result<(), Fault> {
    let target = "/proc";
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    if mount("proc", target, "proc", flags, c"hidepid=invisible").is_err() {
        // Where the machine's own /proc is partly covered (inside a container), the kernel gives
        // out none that would show more. One with processes only shows less than ours.
        return mount("proc", target, "proc", flags, c"hidepid=invisible,subset=pid")
            .at("mount /proc");
    }
    namespace_limits()?;
    if !keeps(Protection::ProcMasks) {
        return Ok(());
    }
    read_only(&format!("{target}/sys"))?;
    for name in MASKED_FILES {
        cover(&format!("{target}/{name}"), |masked| mount_bind("/dev/null", masked))?;
    }
    for name in MASKED_DIRECTORIES {
        // The template's /opt/flavors: an empty directory that nobody can write to.
        cover(&format!("{target}/{name}"), |masked| mount_bind("/opt/flavors", masked))?;
    }
    Ok(())
}

/// What one jail may use up of what the kernel counts by user namespace. The second is also a second
/// wall beside the filter: in this user namespace, no further one can be made.
fn namespace_limits() -> Result<(), Fault> {
    let mut limits = Vec::new();
    if keeps(Protection::FileLimits) {
        limits.push(("user/max_inotify_instances", "64"));
    }
    if keeps(Protection::NamespaceLimit) {
        limits.push(("user/max_user_namespaces", "0"));
    }
    for (name, value) in limits {
        fs::write(format!("/proc/sys/{name}"), value).at(format!("set {name}"))?;
    }
    Ok(())
}

fn read_only(path: &str) -> Result<(), Fault> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(CWD, path, flags).at(format!("open {path}"))?;
    restrict_mount(&tree, MountAttributes::READ_ONLY, Reach::One).at(format!("close {path}"))?;
    move_in(&tree, path)
}

/// Covers a path if there is one. Which files `/proc` has differs between kernels.
fn cover(path: &str, bind: impl Fn(&str) -> rustix::io::Result<()>) -> Result<(), Fault> {
    match bind(path) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
        Err(error) => Err(error).at(format!("cover {path}")),
    }
}

fn flavors(spec: &Spec, trees: &mut impl Iterator<Item = OwnedFd>) -> Result<(), Fault> {
    if spec.flavors.is_empty() {
        return Ok(());
    }
    mount_tmpfs("/opt/flavors", 64 << 10, 0o755, MountFlags::empty())?;
    for ((name, _), tree) in spec.flavors.iter().zip(trees) {
        let target = format!("/opt/flavors/{name}");
        fs::create_dir(&target).at(format!("make the flavor {name}"))?;
        move_in(&tree, &target)?;
    }
    close("opt/flavors")
}

fn write_code(name: &str, code: OwnedFd) -> Result<(), Fault> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let workspace = openat(CWD, "/workspace", flags, Mode::empty()).at("open /workspace")?;
    stage::write_code(workspace.as_fd(), name, code).at("write the code")
}

pub(super) fn move_in(tree: &OwnedFd, target: &str) -> Result<(), Fault> {
    move_mount(tree, "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .at(format!("attach {target}"))
}

fn close(name: &str) -> Result<(), Fault> {
    let target = format!("/{name}");
    let mounted =
        open_tree(CWD, &target, OpenTreeFlags::OPEN_TREE_CLOEXEC).at(format!("open /{name}"))?;
    restrict_mount(mounted, MountAttributes::READ_ONLY, Reach::One).at(format!("close /{name}"))
}

/// Mounts a tmpfs of a given size. Files are memory, so their number is limited, too.
fn tmpfs(name: &str, bytes: u64, mode: u32, more: MountFlags) -> Result<(), Fault> {
    mount_tmpfs(&format!("/{name}"), bytes, mode, more)
}

pub(super) fn mount_tmpfs(
    target: &str,
    bytes: u64,
    mode: u32,
    more: MountFlags,
) -> Result<(), Fault> {
    let bytes = if keeps(Protection::TreeLimit) { bytes } else { bytes * 1024 };
    let inodes = (bytes / 4096).clamp(64, 1 << 20);
    let options = CString::new(format!("size={bytes},nr_inodes={inodes},mode={mode:o}"))
        .map_err(|_| rustix::io::Errno::INVAL)
        .at("write mount options")?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | more;
    mount("tmpfs", target, "tmpfs", flags, options.as_c_str()).at(format!("mount {target}"))
}
