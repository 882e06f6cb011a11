//! Processes over the wire.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::wire::{flag, null_is_default};

/// A program to start.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct CreateRequest {
    /// A program on the `PATH`, or its path.
    pub(super) command: String,
    #[serde(default, deserialize_with = "null_is_default")]
    #[schema(value_type = Option<Vec<String>>)]
    pub(super) args: Vec<String>,
    /// Default: the server's home.
    pub(super) cwd: Option<String>,
    /// Added to the sandbox's environment.
    #[serde(default, deserialize_with = "null_is_default")]
    #[schema(value_type = Option<BTreeMap<String, String>>)]
    pub(super) env: BTreeMap<String, String>,
    /// Keeps no more meaning than its name: every process has an input.
    #[serde(default, deserialize_with = "null_is_default")]
    #[schema(value_type = Option<bool>)]
    pub(super) interactive: bool,
    /// In a terminal of its own.
    #[serde(default, deserialize_with = "null_is_default")]
    #[schema(value_type = Option<bool>)]
    pub(super) tty: bool,
    /// Of the terminal; default 80.
    pub(super) cols: Option<u16>,
    /// Of the terminal; default 24.
    pub(super) rows: Option<u16>,
}

/// A process.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ProcessInfo {
    /// `proc_N`
    pub(super) id: String,
    pub(super) command: String,
    pub(super) args: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cwd: Option<String>,
    pub(super) tty: bool,
    pub(super) interactive: bool,
    /// `user`
    pub(super) owner: &'static str,
    /// `running` or `exited`
    pub(super) status: &'static str,
    /// While it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) pid: Option<u32>,
    /// Unless a signal ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) exit_code: Option<i32>,
    /// The number of the signal that ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) signal: Option<i32>,
    /// Since 1970.
    pub(super) created_at_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) exited_at_ms: Option<u64>,
}

/// All processes, oldest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ProcessList {
    pub(super) processes: Vec<ProcessInfo>,
}

/// Which processes.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListQuery {
    /// `user`, `desktop` or `system`
    #[param(inline)]
    pub(super) owner: Option<Owner>,
}

/// Whose process it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Owner {
    User,
    Desktop,
    System,
}

/// How to end a process.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(crate) struct EndQuery {
    /// How long to wait for its end; default 2000, at most 60000.
    pub(super) wait_ms: Option<u64>,
    /// Another signal, by name or number.
    pub(super) signal: Option<String>,
}

/// Another signal, by name or number.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(crate) struct EndRequest {
    #[schema(value_type = Option<String>)]
    pub(super) signal: Option<SignalName>,
}

/// A signal, as clients write it.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum SignalName {
    Name(String),
    Number(i32),
}

impl SignalName {
    pub(super) fn text(&self) -> String {
        match self {
            Self::Name(name) => name.clone(),
            Self::Number(number) => number.to_string(),
        }
    }
}

/// Something for a process to read.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct InputRequest {
    #[serde(default, deserialize_with = "null_is_default")]
    #[schema(value_type = Option<String>)]
    pub(super) data: String,
    /// `base64` (default; text that is none is taken as it is), `utf8` or `text`
    pub(super) encoding: Option<String>,
    /// Closes the input after this. Not of a terminal: there, send `\u0004`.
    #[serde(default, deserialize_with = "null_is_default")]
    #[schema(value_type = Option<bool>)]
    pub(super) eof: bool,
}

/// What was taken.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct InputResult {
    pub(super) bytes_written: u64,
}

/// Which part of a log.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct LogsQuery {
    #[param(inline)]
    pub(super) stream: Option<StreamName>,
    /// So many of the newest.
    pub(super) tail: Option<u64>,
    /// Only those after this number.
    pub(super) since: Option<u64>,
    /// As events, and what comes after.
    #[serde(default, deserialize_with = "flag")]
    #[param(value_type = Option<bool>)]
    pub(super) follow: bool,
}

/// A stream, or all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum StreamName {
    Stdout,
    Stderr,
    Combined,
    Pty,
}

/// A part of a log.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ProcessLogs {
    pub(super) process_id: String,
    pub(super) stream: StreamName,
    pub(super) entries: Vec<LogEntry>,
}

/// Something that was written.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LogEntry {
    /// From 1, over all streams.
    pub(super) sequence: u64,
    pub(super) stream: &'static str,
    /// Since 1970.
    pub(super) timestamp_ms: u64,
    pub(super) data: String,
    /// `base64`
    pub(super) encoding: &'static str,
}

/// The size of a terminal.
#[derive(Debug, Clone, Copy, Deserialize, Serialize, ToSchema)]
pub(crate) struct TerminalSize {
    pub(super) cols: u16,
    pub(super) rows: u16,
}

/// Where to go on with a terminal.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct TerminalQuery {
    /// Bytes of output that the viewer has seen. Default 0: all that is kept is shown again.
    pub(super) since: Option<u64>,
}

/// A program to run to its end.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RunRequest {
    /// A program on the `PATH`, or its path.
    pub(super) command: String,
    #[serde(default, deserialize_with = "null_is_default")]
    #[schema(value_type = Option<Vec<String>>)]
    pub(super) args: Vec<String>,
    /// Default: the server's home.
    pub(super) cwd: Option<String>,
    /// Added to the sandbox's environment.
    #[serde(default, deserialize_with = "null_is_default")]
    #[schema(value_type = Option<BTreeMap<String, String>>)]
    pub(super) env: BTreeMap<String, String>,
    pub(super) timeout_ms: Option<u64>,
    /// The same in seconds.
    pub(super) timeout: Option<f64>,
    /// Of each stream.
    pub(super) max_output_bytes: Option<u64>,
}

/// How a run ended.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RunResult {
    /// Null if a signal ended it, or its time.
    pub(super) exit_code: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) signal: Option<i32>,
    pub(super) timed_out: bool,
    /// Bytes that are not UTF-8 are replaced.
    pub(super) stdout: String,
    pub(super) stderr: String,
    pub(super) stdout_truncated: bool,
    pub(super) stderr_truncated: bool,
    pub(super) duration_ms: u64,
}
