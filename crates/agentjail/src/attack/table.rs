//! The lines of the checklist that can be attacked on any machine.

/// One line.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line {
    pub(super) name: &'static str,
    pub(super) attack: &'static str,
    pub(super) jail: Kind,
}

/// What the jail and the host around it must be like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Plain,
    /// A workspace of the host, with hostile links in it.
    HostileWorkspace,
    /// An abstract Unix socket of the host, whose name is told.
    HostSocket,
    /// TCP and UDP listeners of the host, whose ports are told.
    HostPorts,
    /// An allowlist of one name that leads to the host itself.
    Allowlist,
    /// Another jail that listens, whose port is told.
    Neighbour,
    /// 64 MiB of memory.
    SmallMemory,
    /// 32 processes.
    FewProcesses,
    /// 4 MiB of output.
    SmallTrees,
    /// Not from inside: what is left when the launcher is killed.
    LauncherDies,
    /// Not from inside: what is left of a jail that hides its processes.
    HiddenProcesses,
    /// Nothing is told.
    HostKill,
}

const fn line(name: &'static str, jail: Kind, attack: &'static str) -> Line {
    Line { name, attack, jail }
}

pub(super) const LINES: [Line; 40] = [
    line("A01", Kind::Plain, "use an inherited descriptor"),
    line("A02", Kind::Plain, "overwrite the program of init"),
    line("A03", Kind::Plain, "read or turn the machine's knobs in /proc"),
    line("A04", Kind::Plain, "replace /dev/null, /dev/pts or /dev"),
    line("A05", Kind::HostileWorkspace, "redirect our mounts by links in the workspace"),
    line("A06", Kind::Plain, "write id maps, attributes and sysctls"),
    line("A07", Kind::Plain, "trace or read other processes"),
    line("A08", Kind::HostKill, "signal everyone"),
    line("A09", Kind::Plain, "read the memory and environment of init"),
    line("A10", Kind::Plain, "leave a core dump"),
    line("A11", Kind::Plain, "hold or gain a capability"),
    line("A12", Kind::Plain, "make or enter a namespace"),
    line("A13", Kind::Plain, "leave the root"),
    line("A14", Kind::LauncherDies, "outlive the launcher"),
    line("A15", Kind::HiddenProcesses, "outlive the jail in a session of its own"),
    line("B01", Kind::Plain, "call the kernel by the 32-bit interface"),
    line("B02", Kind::Plain, "(threads must work)"),
    line("B03", Kind::Plain, "use io_uring"),
    line("B04", Kind::Plain, "open dangerous kinds of sockets"),
    line("B05", Kind::Plain, "type into a terminal"),
    line("B06", Kind::Plain, "handle page faults of the kernel"),
    line("B07", Kind::Plain, "use BPF, performance counters, keyrings"),
    line("B08", Kind::Plain, "find or make a device"),
    line("B09", Kind::Plain, "execute a file in /tmp or /dev/shm"),
    line("B10", Kind::Plain, "switch address randomisation off"),
    line("B11", Kind::Plain, "mount"),
    line("B12", Kind::Plain, "learn of files by handle"),
    line("C01", Kind::Plain, "read the machine's files"),
    line("C02", Kind::HostSocket, "connect to a Unix socket of the machine"),
    line("C03", Kind::HostSocket, "get a descriptor from a service of the machine"),
    line("C08", Kind::SmallTrees, "fill the disk"),
    line("D01", Kind::HostPorts, "reach an address by TCP, UDP, ICMP or raw packets"),
    line("D02", Kind::HostPorts, "reach the metadata service, the host, the control plane"),
    line("D03", Kind::Allowlist, "be led to a private address by an allowed name"),
    line("D05", Kind::Allowlist, "spell a name that is not allowed as one that is"),
    line("D08", Kind::Allowlist, "reach a name that is not allowed, or carry data out by DNS"),
    line("D12", Kind::Neighbour, "reach another jail's port"),
    line("F11", Kind::FewProcesses, "fork without end"),
    line("F11m", Kind::SmallMemory, "take memory without end"),
    line("F11f", Kind::Plain, "open files and watches without end"),
];
