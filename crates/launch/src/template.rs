//! What all jails of a launcher share: a read-only root, made once.
//!
//! ```text
//! home         the launcher's own mount namespace
//! /            a tmpfs
//! ├─ host/     the machine's root, as it was
//! ├─ proc/     the machine's
//! └─ jail/     the template, a tmpfs, read-only: /usr /bin /lib* of the machine, a small /etc and
//!              /dev, and empty directories for what each jail mounts itself
//!
//! nursery      where jails are born: its root is the template, and there is nothing else
//! └─ proc/     of a PID namespace that has ended
//! ```
//!
//! A jail is born with a copy of the nursery's mounts, and so in its own root: there is nothing to bind, and
//! no old root to leave, for whose last users the kernel would wait.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::mount::{
    MountFlags, MountPropagationFlags, OpenTreeFlags, UnmountFlags, mount, mount_bind,
    mount_bind_recursive, mount_change, open_tree, unmount,
};
use rustix::process::{WaitId, WaitIdOptions, waitid};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use sys::{Birth, MountAttributes, Reach, Side, restrict_mount};

use crate::message::{At as _, Fault};
use mutation::{Protection, keeps};

/// The machine's root, as the launcher sees it.
pub(crate) const HOST: &str = "/host";
/// The finished root of a jail.
const JAIL: &str = "/jail";

/// Devices that a jail has. `ptmx` and `pts` are its own.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// System directories taken from the machine, where it has them.
const SYSTEM: [&str; 8] = ["usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "nix"];

/// Files of `/etc` that programs need to start, resolve users and check certificates. `passwd`,
/// `group`, `hosts`, `resolv.conf` and `nsswitch.conf` are ours.
const ETC_FILES: [&str; 10] = [
    "ld.so.cache",
    "ld.so.conf",
    "localtime",
    "mime.types",
    "protocols",
    "services",
    "ssl/certs/ca-certificates.crt",
    "ssl/openssl.cnf",
    "pki/tls/certs/ca-bundle.crt",
    "debian_version",
];

const ETC_DIRECTORIES: [&str; 2] = ["alternatives", "ld.so.conf.d"];

/// The user inside every jail.
pub(crate) const USER_ID: u32 = 1000;

/// The launcher's two mount namespaces.
pub(crate) struct Namespaces {
    /// With the machine below `/host`.
    home: OwnedFd,
    /// With the template as its root.
    nursery: OwnedFd,
    /// Whether the nursery's `/proc` is not the machine's.
    own_proc: bool,
}

impl Namespaces {
    /// Goes where jails are born.
    pub(crate) fn enter_nursery(&self) -> Result<(), Fault> {
        enter(&self.nursery)
    }

    /// Whether `/proc/sys` of the nursery can be written to.
    pub(crate) fn has_own_proc(&self) -> bool {
        self.own_proc
    }

    /// Comes back.
    pub(crate) fn go_home(&self) -> Result<(), Fault> {
        enter(&self.home)
    }

    /// Makes the nursery: a copy of the namespace this process is in, of which the template is left.
    fn make() -> Result<Self, Fault> {
        let home = own_namespace()?;
        sys::unshare(sys::Namespaces::MOUNT).at("make a mount namespace for births")?;
        let nursery = own_namespace()?;
        let mut namespaces = Self { home, nursery, own_proc: false };
        namespaces.enter_nursery()?;
        namespaces.own_proc = empty_proc(&format!("{JAIL}/proc"))?;
        pivot(JAIL)?;
        namespaces.go_home()?;
        Ok(namespaces)
    }
}

/// Mounts a `/proc` without processes.
///
/// A user namespace may mount a `/proc` only where it sees one already, so there must be one in the
/// nursery, and in each jail below its own. The machine's would do, and shall not be there; gives whether it
/// is not.
fn empty_proc(target: &str) -> Result<bool, Fault> {
    let step = "mount the nursery's /proc";
    let birth = Birth { namespaces: sys::Namespaces::PID, cgroup: None };
    match sys::clone3(&birth).at(step)? {
        Side::Child => {
            let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
            let mounted = mount("proc", target, "proc", flags, None);
            sys::exit(mounted.err().map_or(0, rustix::io::Errno::raw_os_error))
        }
        Side::Parent { child, .. } => {
            let ended = waitid(WaitId::PidFd(child.as_fd()), WaitIdOptions::EXITED).at(step)?;
            match ended.and_then(|status| status.exit_status()) {
                Some(0) => Ok(true),
                // Where the machine's own is partly covered, none may be had here either, nor in a jail.
                Some(errno) if errno == rustix::io::Errno::PERM.raw_os_error() => {
                    mount_bind_recursive("/proc", target).at(step).map(|()| false)
                }
                Some(errno) => Err(rustix::io::Errno::from_raw_os_error(errno)).at(step),
                None => Err(rustix::io::Errno::CHILD).at(step),
            }
        }
    }
}

fn own_namespace() -> Result<OwnedFd, Fault> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    openat2(CWD, "/proc/self/ns/mnt", flags, Mode::empty(), ResolveFlags::empty())
        .at("open the mount namespace")
}

fn enter(namespace: &OwnedFd) -> Result<(), Fault> {
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Mount))
        .at("enter a mount namespace")
}

/// Builds the tree and makes it this process's root.
///
/// The process must have a mount namespace of its own.
pub(crate) fn build(hosts: &[(String, IpAddr)]) -> Result<Namespaces, Fault> {
    // Nothing of ours shows outside, and nothing from outside arrives later.
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).at("make the launcher's mounts private")?;
    enter_own_root()?;
    let jail = Path::new(JAIL);
    tmpfs(jail, c"mode=755,size=8m,nr_inodes=8k").at("mount the jail's root")?;
    system_directories(jail)?;
    if !keeps(Protection::Root) {
        fs::create_dir(jail.join("host")).at("make /host")?;
        mount_bind_recursive(HOST, jail.join("host")).at("bind the machine's root")?;
    }
    devices(jail)?;
    etc(jail, hosts)?;
    empty_directories(jail)?;
    let root = open(jail).at("open the jail's root")?;
    let closed =
        MountAttributes::READ_ONLY.and(MountAttributes::NO_SUID).and(MountAttributes::NO_DEVICES);
    restrict_mount(root, closed, Reach::One).at("close the jail's root")?;
    Namespaces::make()
}

fn enter_own_root() -> Result<(), Fault> {
    // Mounted over /tmp only until the pivot moves it away from there: every machine has that.
    let start = Path::new("/tmp");
    tmpfs(start, c"mode=755,size=1m").at("mount the launcher's root")?;
    for name in ["host", "proc", "jail"] {
        fs::create_dir(start.join(name)).at("make the launcher's root")?;
    }
    rustix::process::chdir(start).at("enter the launcher's root")?;
    rustix::process::pivot_root(".", "host").at("pivot into the launcher's root")?;
    rustix::process::chdir("/").at("enter the launcher's root")?;
    mount_bind_recursive("/host/proc", "/proc").at("bind /proc")
}

fn system_directories(jail: &Path) -> Result<(), Fault> {
    for name in SYSTEM {
        let source = Path::new(HOST).join(name);
        let target = jail.join(name);
        let Ok(metadata) = fs::symlink_metadata(&source) else { continue };
        if metadata.is_symlink() {
            let points_to = fs::read_link(&source).at(format!("read the link /{name}"))?;
            symlink(points_to, target).at(format!("make the link /{name}"))?;
            continue;
        }
        fs::create_dir(&target).at(format!("make /{name}"))?;
        mount_bind_recursive(&source, &target).at(format!("bind /{name}"))?;
        let mounted = open(&target).at(format!("open /{name}"))?;
        let read_only = MountAttributes::READ_ONLY
            .and(MountAttributes::NO_SUID)
            .and(MountAttributes::NO_DEVICES);
        restrict_mount(mounted, read_only, Reach::Recursive).at(format!("close /{name}"))?;
    }
    Ok(())
}

fn devices(jail: &Path) -> Result<(), Fault> {
    let dev = jail.join("dev");
    fs::create_dir(&dev).at("make /dev")?;
    let more = if keeps(Protection::Devices) { None } else { Some("kmsg") };
    for name in DEVICES.into_iter().chain(more) {
        let target = dev.join(name);
        fs::write(&target, "").at(format!("make /dev/{name}"))?;
        mount_bind(Path::new(HOST).join("dev").join(name), &target)
            .at(format!("bind /dev/{name}"))?;
        let mounted = open(&target).at(format!("open /dev/{name}"))?;
        let plain = MountAttributes::NO_SUID.and(MountAttributes::NO_EXEC);
        restrict_mount(mounted, plain, Reach::One).at(format!("close /dev/{name}"))?;
    }
    let links = [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ];
    for (name, points_to) in links {
        symlink(points_to, dev.join(name)).at(format!("make /dev/{name}"))?;
    }
    Ok(())
}

fn etc(jail: &Path, hosts: &[(String, IpAddr)]) -> Result<(), Fault> {
    let source = Path::new(HOST).join("etc");
    let target = jail.join("etc");
    for file in ETC_FILES {
        copy_file(&source.join(file), &target.join(file)).at(format!("copy /etc/{file}"))?;
    }
    for directory in ETC_DIRECTORIES {
        copy_directory(&source.join(directory), &target.join(directory))
            .at(format!("copy /etc/{directory}"))?;
    }
    let hosts =
        hosts.iter().map(|(name, address)| format!("{address}\t{name}\n")).collect::<String>();
    let ours = [
        (
            "passwd",
            format!(
                "root:x:0:0:root:/nonexistent:/usr/sbin/nologin\n\
             agent:x:{USER_ID}:{USER_ID}:agent:/home/agent:/bin/sh\n\
             nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
            ),
        ),
        ("group", format!("root:x:0:\nagent:x:{USER_ID}:\nnogroup:x:65534:\n")),
        ("hosts", format!("127.0.0.1\tlocalhost jail\n::1\tlocalhost ip6-localhost\n{hosts}")),
        ("resolv.conf", "nameserver 127.0.0.1\noptions timeout:5 attempts:2\n".to_owned()),
        ("nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n".to_owned()),
        ("hostname", "jail\n".to_owned()),
    ];
    for (name, content) in ours {
        fs::write(target.join(name), content).at(format!("write /etc/{name}"))?;
    }
    Ok(())
}

fn empty_directories(jail: &Path) -> Result<(), Fault> {
    for name in
        ["proc", "tmp", "workspace", "output", "home/agent", "opt/flavors", "dev/pts", "dev/shm"]
    {
        make_directory(&jail.join(name)).at(format!("make /{name}"))?;
    }
    Ok(())
}

/// Copies one file, if the machine has it. Links are followed: `/etc` is the machine's own.
fn copy_file(source: &Path, target: &Path) -> io::Result<()> {
    if !source.is_file() {
        return Ok(());
    }
    if let Some(parent) = target.parent() {
        make_directory(parent)?;
    }
    fs::copy(source, target)?;
    fs::set_permissions(target, fs::Permissions::from_mode(0o644))
}

/// Copies the files and links of one directory, if the machine has it.
fn copy_directory(source: &Path, target: &Path) -> io::Result<()> {
    if !source.is_dir() {
        return Ok(());
    }
    make_directory(target)?;
    for entry in fs::read_dir(source)? {
        let entry = entry?;
        let copy = target.join(entry.file_name());
        if entry.file_type()?.is_symlink() {
            symlink(fs::read_link(entry.path())?, copy)?;
        } else {
            copy_file(&entry.path(), &copy)?;
        }
    }
    Ok(())
}

fn make_directory(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o755).create(path)
}

fn tmpfs(target: &Path, options: &std::ffi::CStr) -> rustix::io::Result<()> {
    mount("tmpfs", target, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, options)
}

fn open(path: &Path) -> rustix::io::Result<OwnedFd> {
    open_tree(CWD, path, OpenTreeFlags::OPEN_TREE_CLOEXEC)
}

/// A detached copy of a directory of the host, to be moved into a jail.
pub(crate) fn detached(path: &Path) -> Result<OwnedFd, Fault> {
    let step = || format!("open the directory {}", path.display());
    // The caller has resolved the path. A link on it by now was put there since, perhaps by a jail.
    let how = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory =
        openat2(CWD, seen_from_here(path), how, Mode::empty(), ResolveFlags::NO_SYMLINKS)
            .at(step())?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    open_tree(directory, "", flags).at(step())
}

/// Where a path of the machine is in the launcher's root.
pub(crate) fn seen_from_here(path: &Path) -> PathBuf {
    Path::new(HOST).join(path.strip_prefix("/").unwrap_or(path))
}

/// Leaves the old root behind, for good.
pub(crate) fn pivot(new_root: &str) -> Result<(), Fault> {
    rustix::process::chdir(new_root).at("enter the jail's root")?;
    rustix::process::pivot_root(".", ".").at("pivot into the jail's root")?;
    unmount(".", UnmountFlags::DETACH).at("detach the old root")?;
    rustix::process::chdir("/").at("enter the jail's root")
}
