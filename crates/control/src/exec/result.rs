//! A command's end, as it goes over the wire.

use serde::Serialize;
use utoipa::ToSchema;

/// What a jail used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct ResourceStats {
    pub(crate) memory_peak_bytes: u64,
    pub(crate) memory_current_bytes: u64,
    pub(crate) cpu_usage_usec: u64,
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
    /// The signal that ended it, by name.
    pub(crate) signal: Option<String>,
    /// Protections and limits that were in force.
    pub(crate) enforced: Vec<String>,
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
