//! A command's end, as it goes over the wire.

use serde::Serialize;
use utoipa::ToSchema;

/// What a jail used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct ResourceStats {
    pub(crate) memory_peak_bytes: u64,
    pub(crate) memory_current_bytes: u64,
    pub(crate) cpu_usage_usec: u64,
    pub(crate) cpu_user_usec: u64,
    pub(crate) cpu_system_usec: u64,
    pub(crate) io_read_bytes: u64,
    pub(crate) io_write_bytes: u64,
    pub(crate) pids_current: u64,
}

impl From<jail::Statistics> for ResourceStats {
    fn from(statistics: jail::Statistics) -> Self {
        Self {
            memory_peak_bytes: statistics.memory_peak_bytes,
            memory_current_bytes: statistics.memory_current_bytes,
            cpu_usage_usec: statistics.cpu_usage_usec,
            cpu_user_usec: statistics.cpu_user_usec,
            cpu_system_usec: statistics.cpu_system_usec,
            io_read_bytes: statistics.io_read_bytes,
            io_write_bytes: statistics.io_write_bytes,
            pids_current: statistics.pids_current,
        }
    }
}

impl From<ResourceStats> for store::JailStatistics {
    fn from(stats: ResourceStats) -> Self {
        Self {
            memory_peak_bytes: stats.memory_peak_bytes,
            memory_current_bytes: stats.memory_current_bytes,
            cpu_usage_usec: stats.cpu_usage_usec,
            cpu_user_usec: stats.cpu_user_usec,
            cpu_system_usec: stats.cpu_system_usec,
            io_read_bytes: stats.io_read_bytes,
            io_write_bytes: stats.io_write_bytes,
            pids_current: stats.pids_current,
        }
    }
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct ExecResult {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// 128 + n if signal n ended it; 126 and 127 as from a shell.
    pub(crate) exit_code: i32,
    pub(crate) duration_ms: u64,
    pub(crate) timed_out: bool,
    pub(crate) oom_killed: bool,
    /// Absent where there is no cgroup to count in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) stats: Option<ResourceStats>,
    /// Whether the stream was longer than a result carries.
    pub(crate) stdout_truncated: bool,
    pub(crate) stderr_truncated: bool,
    /// Why the server ended it, if that was neither its time nor its memory: a quota.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
    /// The signal that ended it, by name.
    pub(crate) signal: Option<String>,
    /// Protections and limits that were in force.
    pub(crate) enforced: Vec<String>,
    /// Of a jail with an allowlist.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) network: Option<NetworkUse>,
}

/// What went through a jail's gate, and what did not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct NetworkUse {
    pub sent_bytes: u64,
    pub received_bytes: u64,
    pub connections: u64,
    /// In the order they first came; at most 64 of each protocol.
    pub refused: Vec<RefusedUse>,
    /// Refusals beyond those.
    pub refused_more: u64,
}

/// Something the jail wanted to reach and did not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct RefusedUse {
    /// A stable word, such as `host-not-allowed`.
    pub reason: &'static str,
    /// `tcp`, `udp` or `dns`.
    pub protocol: &'static str,
    pub host: String,
    /// 0 for a look-up.
    pub port: u16,
    /// The entry of `domains` that would allow it, if one could.
    pub rule: Option<String>,
    pub count: u64,
}

impl NetworkUse {
    /// As shown to a caller.
    pub fn new(
        traffic: egress::Traffic,
        (refused, refused_more): (Vec<egress::Refused>, u64),
    ) -> Self {
        let shown = |refused: egress::Refused| RefusedUse {
            reason: refused.reason.as_str(),
            protocol: refused.protocol.as_str(),
            host: refused.host,
            port: refused.port,
            rule: refused.rule,
            count: refused.count,
        };
        Self {
            sent_bytes: traffic.sent_bytes,
            received_bytes: traffic.received_bytes,
            connections: traffic.connections,
            refused: refused.into_iter().map(shown).collect(),
            refused_more,
        }
    }
}

/// A signal's name on x86-64 Linux, as `kill -l` gives it, with `SIG`.
pub(crate) fn signal_name(signal: i32) -> String {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
        "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
        "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
    ];
    let name = usize::try_from(signal - 1).ok().and_then(|n| NAMES.get(n));
    name.map_or_else(|| format!("SIG{signal}"), |name| format!("SIG{name}"))
}
