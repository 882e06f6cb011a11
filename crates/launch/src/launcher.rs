//! The launcher's life: prepare once, then start jails and clean up after them.
//!
//! ```text
//!   exec ──▶ Prepare ──▶ wait ──▶ Request: make a jail, hand its pidfd to the server
//!                         ▲ │──▶ a jail's init died: reap it, remove its cgroup
//!                         └─┘
//!                           │──▶ the server is gone: kill every jail, clean up, exit
//! ```
//!
//! The launcher outlives a server that is killed by as long as it takes to end what the server had
//! started. If the launcher itself is killed, the kernel kills each init (parent-death signal), and
//! with it all that runs in its PID namespace.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, WaitOptions, pidfd_send_signal, wait};
use rustix::thread::{CapabilitiesSecureBits, set_capabilities_secure_bits};

use crate::birth::{Birthplace, Newborn, Stillborn};
use crate::cgroup::{self, Driver, Group};
use crate::message::{At as _, Fault, Offers, Preparation, Reply, Request};
use crate::{template, wire};

/// Under this name the program is a launcher.
const NAME: &str = "agentjail-launcher";

/// How long to wait before trying again to remove a cgroup that the kernel still counts someone in.
const RETRY: Timespec = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };

/// What this process was started as, when it is not what the user typed.
#[derive(Debug)]
pub struct Role(());

impl Role {
    /// The name to start the program under to make it a launcher.
    pub fn name() -> &'static str {
        NAME
    }

    /// Reads the role off the name this process was started under.
    pub fn from_argv0() -> Option<Self> {
        (std::env::args_os().next().as_deref() == Some(OsStr::new(NAME))).then_some(Self(()))
    }
}

/// Runs the launcher until the server closes the socket that is our standard input.
pub fn run(_role: &Role) -> ExitCode {
    match Launcher::prepare().and_then(|launcher| launcher.map_or(Ok(()), Launcher::serve)) {
        Ok(()) => ExitCode::SUCCESS,
        // The server reads our standard error into its log.
        Err(fault) => {
            eprintln!("launcher: {fault}");
            ExitCode::FAILURE
        }
    }
}

struct Launcher {
    server: OwnedFd,
    children: OwnedFd,
    birthplace: Birthplace,
    driver: Option<Box<dyn Driver>>,
    jails: HashMap<Pid, Ward>,
    /// Groups whose jails are gone, but which the kernel would not remove yet.
    leftover: Vec<Group>,
}

/// What a preparation makes.
struct Ready {
    children: OwnedFd,
    birthplace: Birthplace,
    driver: Option<Box<dyn Driver>>,
}

/// A jail that runs.
struct Ward {
    init: OwnedFd,
    group: Option<Group>,
}

impl Launcher {
    /// `None` if the server went away before it said what to prepare.
    fn prepare() -> Result<Option<Self>, Fault> {
        let server = take_standard_input().at("take the server's socket")?;
        // A Ctrl-C in the server's terminal is the server's to handle.
        rustix::process::setsid().at("leave the server's session")?;
        let Some((request, _)) = wire::receive::<Request>(&server).at("receive")? else {
            return Ok(None);
        };
        let Request::Prepare(preparation) = request else {
            return Err(rustix::io::Errno::PROTO).at("receive the preparation");
        };
        match Self::make_ready(server.as_fd(), &preparation) {
            Ok(Ready { children, birthplace, driver }) => Ok(Some(Self {
                server,
                children,
                birthplace,
                driver,
                jails: HashMap::new(),
                leftover: Vec::new(),
            })),
            Err(fault) => {
                wire::send(&server, &Reply::Unfit(fault.clone()), &[]).at("send")?;
                Err(fault)
            }
        }
    }

    fn make_ready(server: impl AsFd, preparation: &Preparation) -> Result<Ready, Fault> {
        let children = sys::child_signals().at("watch for children")?;
        // When the machine runs out of memory, jails go before anything else does.
        drop(fs::write("/proc/self/oom_score_adj", "500"));
        let root = rustix::process::geteuid().is_root();
        enter_namespaces(root)?;
        template::build(&preparation.hosts)?;
        let driver = cgroup::detect(
            Path::new(template::HOST),
            &preparation.instance,
            preparation.server_pid,
        );
        let offers = offers(&driver, root);
        let host_id = if root { preparation.host_id } else { rustix::process::geteuid().as_raw() };
        let host_group =
            if root { preparation.host_id } else { rustix::process::getegid().as_raw() };
        let birthplace = Birthplace::new(host_id, host_group, offers.landlock_abi);
        if let Err(fault) = wire::send(server, &Reply::Prepared(offers), &[]).at("send") {
            // The server has gone already: nothing is left of what was made for it.
            if let Ok(driver) = &driver {
                driver.remove();
            }
            return Err(fault);
        }
        Ok(Ready { children, birthplace, driver: driver.ok() })
    }

    fn serve(mut self) -> Result<(), Fault> {
        loop {
            let (server, children) = self.wait()?;
            if children {
                self.reap();
            }
            if server {
                match wire::receive::<Request>(&self.server) {
                    Ok(Some((Request::Start(spec), descriptors))) => {
                        self.start(*spec, descriptors).at("answer the server")?;
                    }
                    Ok(Some((Request::Prepare(_), _))) | Err(_) => {
                        return Err(rustix::io::Errno::PROTO).at("receive a request");
                    }
                    Ok(None) => {
                        self.end();
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Waits for the server or a child; tells which.
    fn wait(&mut self) -> Result<(bool, bool), Fault> {
        self.leftover.retain_mut(|group| !group.remove());
        let timeout = (!self.leftover.is_empty()).then_some(&RETRY);
        let mut watched =
            [PollFd::new(&self.server, PollFlags::IN), PollFd::new(&self.children, PollFlags::IN)];
        match poll(&mut watched, timeout) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).at("wait"),
        }
        Ok((!watched[0].revents().is_empty(), !watched[1].revents().is_empty()))
    }

    fn start(&mut self, spec: crate::message::Spec, descriptors: Vec<OwnedFd>) -> io::Result<()> {
        let jail = spec.jail;
        match self.birthplace.bear(self.driver.as_deref(), spec, descriptors) {
            Ok(Newborn { pid, init, group }) => {
                let place = group.as_ref().map(|group| group.place.clone());
                let raw = pid.as_raw_nonzero().get().cast_unsigned();
                let reply = Reply::Born { jail, pid: raw, place };
                let sent = wire::send(&self.server, &reply, &[init.as_fd()]);
                self.jails.insert(pid, Ward { init, group });
                sent
            }
            Err(Stillborn { fault, group }) => {
                self.leftover.extend(group.map(|group| *group));
                wire::send(&self.server, &Reply::Refused { jail, fault: *fault }, &[])
            }
        }
    }

    fn reap(&mut self) {
        let mut signal = [0_u8; 128];
        while rustix::io::read(&self.children, &mut signal).is_ok() {}
        while let Ok(Some((pid, _))) = wait(WaitOptions::NOHANG) {
            // A child that is no jail's init died at birth; its birth has dealt with it.
            if let Some(mut group) = self.jails.remove(&pid).and_then(|ward| ward.group)
                && !group.remove()
            {
                self.leftover.push(group);
            }
        }
    }

    /// The server is gone: so is everything it started.
    fn end(mut self) {
        for ward in self.jails.values() {
            // An error means that it is dead already.
            let _ = pidfd_send_signal(&ward.init, Signal::KILL);
        }
        while let Ok(Some((pid, _))) = wait(WaitOptions::empty()) {
            self.leftover.extend(self.jails.remove(&pid).and_then(|ward| ward.group));
        }
        for _ in 0..400 {
            self.leftover.retain_mut(|group| !group.remove());
            if self.leftover.is_empty() {
                break;
            }
            let _ = poll(&mut [], Some(&RETRY));
        }
        if let Some(driver) = &self.driver {
            driver.remove();
        }
    }
}

/// Moves the server's socket off descriptor 0, where a command would find it.
fn take_standard_input() -> io::Result<OwnedFd> {
    let server = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    let null = fs::File::open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    Ok(server)
}

/// An ordinary user first becomes the owner of a user namespace, where mounting is allowed.
fn enter_namespaces(root: bool) -> Result<(), Fault> {
    if root {
        // A jail is born with another effective user, and that must not cost capabilities.
        set_capabilities_secure_bits(CapabilitiesSecureBits::NO_SETUID_FIXUP)
            .at("keep capabilities across a change of user")?;
        return sys::unshare(sys::Namespaces::MOUNT).at("make a mount namespace");
    }
    let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    sys::unshare(sys::Namespaces::USER.and(sys::Namespaces::MOUNT)).at("make a user namespace")?;
    fs::write("/proc/self/setgroups", "deny").at("write setgroups")?;
    fs::write("/proc/self/uid_map", format!("{user} {user} 1")).at("write uid_map")?;
    fs::write("/proc/self/gid_map", format!("{group} {group} 1")).at("write gid_map")
}

fn offers(driver: &Result<Box<dyn Driver>, Fault>, root: bool) -> Offers {
    let controllers = driver.as_ref().map(|driver| driver.controllers()).unwrap_or_default();
    Offers {
        cgroups: driver.as_ref().map(|d| d.name().to_owned()).map_err(ToString::to_string),
        memory: controllers.memory,
        cpu: controllers.cpu,
        pids: controllers.pids,
        landlock_abi: sys::landlock_abi(),
        root,
    }
}
