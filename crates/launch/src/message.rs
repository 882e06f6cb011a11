//! What the server, the launcher and init say to each other.
//!
//! Both ends come from the same build, so the encoding has no version: the launcher is the same
//! program as the server, started under another name.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::{fmt, io};

use serde::{Deserialize, Serialize};

use crate::Execution;
use crate::cgroup::Place;
use crate::shape::Shape;

/// From the server to the launcher. The first message is [`Request::Prepare`].
#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    Prepare(Preparation),
    /// Descriptors, in order: report socket, standard input, output and error if there is a command,
    /// and the content of [`Spec::code`] if there is one.
    Start(Box<Spec>),
    /// Keep blank jails for specs like this one. Nothing is started.
    Warm(Box<Spec>),
    /// Answered by [`Reply::Blanks`] with the same number.
    Count(u64),
    /// Why this jail's init has gone. Answered by [`Reply::Died`], unless [`Reply::Refused`] said it already.
    Inquire(u64),
}

/// What the launcher must know before the first jail.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Preparation {
    /// Names that every jail's `/etc/hosts` gives an address.
    pub hosts: Vec<(String, IpAddr)>,
    /// Name of the cgroup that holds this launcher's jails.
    pub instance: String,
    /// The server's process, which cgroup v2 may need moved out of the way.
    pub server_pid: u32,
    pub pool: Pool,
    /// Protections to leave out, by name; heard only by a build for tests. See [`mutation`].
    pub left_out: Vec<String>,
}

/// What is kept ready for jails to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// How many blank jails, over all shapes; 0 keeps none.
    pub size: u32,
    /// How many jails without a shape, for those of shapes that have no blank; 0 keeps none.
    pub spares: u32,
    /// With less memory available on the machine than this, none are kept.
    pub reserve_bytes: u64,
}

impl Pool {
    pub const NONE: Self = Self { size: 0, spares: 0, reserve_bytes: 0 };
}

/// From the launcher to the server.
#[derive(Debug, Serialize, Deserialize)]
pub enum Reply {
    Prepared(Offers),
    /// Nothing is said of a jail that is made: its init does that, in [`Report::Ready`].
    Refused {
        jail: u64,
        fault: Fault,
    },
    /// Init died before it was ready; whether for want of memory.
    Died {
        jail: u64,
        oom: bool,
    },
    /// Blank jails that are ready.
    Blanks {
        request: u64,
        count: u64,
    },
    /// The preparation failed: no jail can be made.
    Unfit(Fault),
}

/// What this machine can enforce.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Offers {
    /// `v1`, `v2`, or why there is no cgroup to use.
    pub cgroups: Result<String, String>,
    pub memory: bool,
    pub cpu: bool,
    pub pids: bool,
    pub io: bool,
    pub landlock_abi: Option<u32>,
    /// Whether the launcher is root and jails run as another host user.
    pub root: bool,
}

/// A jail and the command to run in it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Spec {
    /// Chosen by the server; only echoed.
    pub jail: u64,
    /// Host user and group that the jail runs as when the launcher is root.
    pub host_id: u32,
    /// The first command; without one the jail waits for orders.
    pub command: Option<Execution>,
    pub workspace: Tree,
    pub output: Tree,
    /// What [`Tree::Layered`] shows a part of.
    pub layers: Option<Layers>,
    /// A root file system, read-only, in place of the machine's system directories. It has the
    /// directories and files of [`IMAGE_DIRECTORIES`] and [`IMAGE_FILES`].
    pub image: Option<PathBuf>,
    /// A file to put into the workspace before it is closed to writing.
    pub code: Option<String>,
    /// Read-only trees at `/opt/flavors/<name>`.
    pub flavors: Vec<(String, PathBuf)>,
    pub network: Network,
    pub profile: Profile,
    pub limits: Limits,
    pub enforcement: Enforcement,
}

/// A program and what it gets. Goes over the wire as an [`Execution`].
#[derive(Debug, Clone)]
pub struct Command {
    /// Looked up in the `PATH` of `environment` if it holds no slash.
    pub program: String,
    pub arguments: Vec<String>,
    pub environment: Vec<(String, String)>,
    /// Where it starts.
    pub directory: String,
}

/// Where commands start that were not told otherwise.
pub const WORKSPACE: &str = "/workspace";

/// What stands at `/workspace` or `/output`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Tree {
    /// A tmpfs of at most this many bytes, gone with the jail.
    Fresh { bytes: u64, access: Access },
    /// A directory of the host.
    Host { path: PathBuf, access: Access },
    /// The directory of this name in [`Spec::layers`].
    Layered { access: Access },
}

/// An overlay: immutable trees below, one above that takes what is written. Each holds `workspace` and
/// `output`, and `home` if that is kept, or what of them it changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layers {
    /// The topmost first.
    pub lower: Vec<PathBuf>,
    /// Holds `files`, the tree that is written to, and `work`, which the kernel needs.
    pub upper: PathBuf,
    /// Whether the home directory is a part of it, too, which is made if it is not there.
    pub home: bool,
}

/// What every jail has, mounted by us: an image has a directory for each.
pub const IMAGE_DIRECTORIES: [&str; 7] =
    ["proc", "dev", "tmp", "workspace", "output", "home/agent", "opt/flavors"];

/// What tells a jail its own name and those of others: an image has a file for each.
pub const IMAGE_FILES: [&str; 3] = ["etc/hosts", "etc/hostname", "etc/resolv.conf"];

/// More trees than this are not mounted over each other: a message carries no more descriptors.
pub const MOST_LAYERS: usize = 128;

impl Tree {
    /// Whether the jail may write to it.
    pub fn access(&self) -> Access {
        match self {
            Self::Fresh { access, .. } | Self::Host { access, .. } | Self::Layered { access } => {
                *access
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Access {
    ReadOnly,
    ReadWrite,
}

/// The jail's network namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Whether `lo` is up.
    pub loopback: bool,
    /// Whether TCP goes to the listeners' ports or nowhere, not even within the jail.
    pub isolated: bool,
    /// Addresses that are made local, so that dialling them reaches a listener of this jail.
    pub local: Local,
    /// Sockets to bind inside and hand out, in this order.
    pub listeners: Vec<Listener>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Local {
    /// Those of `lo`.
    #[default]
    Loopback,
    /// One more address.
    And(IpAddr),
    /// Every address there is.
    Everything,
}

/// A socket bound inside a jail and served outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    pub transport: Transport,
    /// `[::]` means every address, IPv4 too.
    pub address: SocketAddr,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Transport {
    Tcp,
    Udp,
    /// Not a listener: takes copies of the first packets of what reaches none. The address is of no
    /// matter. Only for a jail that is about to be made.
    Attempts,
}

/// A system call filter. See [`crate::seccomp`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Profile {
    Standard,
    /// Standard without sockets.
    Strict,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    pub memory_bytes: u64,
    /// Of one CPU: 200 is two CPUs.
    pub cpu_percent: u32,
    /// Processes and threads of the command; init is not counted.
    pub pids: u32,
    pub open_files: u64,
    /// Size of `/tmp`.
    pub tmp_bytes: u64,
    /// Share of the processor beside other jails when it is scarce: 1 to 10,000; 100 is the norm.
    pub cpu_weight: Option<u32>,
    /// Bytes a second that may be read from, and written to, each disk.
    pub io_bytes_per_second: Option<u64>,
}

/// What to do where a protection cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Enforcement {
    /// Refuse to start.
    Required,
    /// Start without it, and say so in [`Report::Ready`].
    BestEffort,
}

/// From the launcher to init, over the door socket.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Knock<'a> {
    /// Comes with the cgroup files to join.
    Join,
    /// The ids are mapped, and this is what the jail will be like.
    Form(Box<Shape>),
    Assign(Assignment<'a>),
}

/// What turns a blank jail into somebody's.
///
/// Descriptors, in order: init's own pidfd; report socket; for [`Work::Given`], standard input, output and error if there
/// is a command; the code if any; then one directory tree for each tree and flavor that is the host's, and those of the
/// layers: the upper one, then the lower ones.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Assignment<'a> {
    /// For the server: goes into [`Report::Ready`] as it is.
    pub(crate) standing: Vec<u8>,
    pub(crate) open_files: u64,
    pub(crate) work: Work<'a>,
}

/// What an assignment leaves to init.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Work<'a> {
    /// The launcher tells the stage its command by itself, if there is one.
    Told {
        command: bool,
    },
    Given(Box<Cow<'a, Spec>>),
}

/// What the server shall know of a jail, encoded in [`Report::Ready`] by the launcher: init, who passes it on, need not
/// understand it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Standing {
    /// Init's.
    pub pid: u32,
    pub place: Option<Place>,
    /// What is in force when init says that it is ready.
    pub enforced: Vec<String>,
}

/// Number of a command in its jail; the first one's is 0.
pub type Process = u32;

/// The number of the command that a jail was made for.
pub const FIRST: Process = 0;

/// From the server to init.
#[derive(Debug, Serialize, Deserialize)]
pub enum Order {
    /// Send a signal to a command and its process group.
    Signal { process: Process, signal: i32 },
    /// Kill a command, everything in its session, and everything descended from it.
    Kill { process: Process },
    /// Start one more command. Comes with its standard input, output and error, unless it gets a
    /// terminal. Answered by [`Report::Started`].
    Start(Box<Further>),
    /// Connect to a port of the jail. Answered by [`Report::Socket`], perhaps still connecting.
    Connect { request: u32, port: u16 },
    /// Bind one more socket. Answered by [`Report::Socket`].
    Listen { request: u32, listener: Listener },
}

/// A command beside the first.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Further {
    /// Chosen by the server, and never used twice.
    pub process: Process,
    pub command: Execution,
    pub terminal: Option<TerminalSize>,
    /// Whether what is left of its session ends with it.
    pub whole: bool,
}

/// In characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    pub rows: u16,
    pub columns: u16,
}

/// From init to the server.
#[derive(Debug, Serialize, Deserialize)]
pub enum Report {
    /// Everything is in force and the command runs, or could not be executed (then
    /// [`Report::Exited`] follows, with 126 or 127). Comes with init's pidfd and the listeners asked for.
    Ready {
        /// A [`Standing`], for [`crate::wire::decode`].
        standing: Vec<u8>,
        not_executed: Option<i32>,
        /// How the command ended, if it has already: then no [`Report::Exited`] follows.
        ended: Option<Exit>,
    },
    /// A step failed; nothing untrusted has run.
    Failed(Fault),
    /// A further command runs, or could not be executed; comes with its terminal, if it has one.
    Started {
        process: Process,
        not_executed: Option<i32>,
    },
    /// A further command could not be started.
    NotStarted {
        process: Process,
        fault: Fault,
    },
    /// Comes with the socket asked for, if it could be had.
    Socket {
        request: u32,
        refused: Option<Fault>,
    },
    Exited {
        process: Process,
        exit: Exit,
    },
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    Code(i32),
    Signal(i32),
}

/// A step that failed, and the kernel's reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    pub step: String,
    pub errno: i32,
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.step, io::Error::from_raw_os_error(self.errno))
    }
}

impl std::error::Error for Fault {}

/// Says at which step something failed.
pub(crate) trait At<T> {
    fn at(self, step: impl Into<String>) -> Result<T, Fault>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, step: impl Into<String>) -> Result<T, Fault> {
        self.map_err(|error| {
            let errno = error.into().raw_os_error().unwrap_or(rustix::io::Errno::IO.raw_os_error());
            Fault { step: step.into(), errno }
        })
    }
}
