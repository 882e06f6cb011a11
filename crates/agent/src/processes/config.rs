//! The limits of processes, which clients may read and change.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::error::ProcessError;

/// Limits in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ProcessConfig {
    /// Processes running at once, of those made by `POST /v1/processes`.
    pub(crate) max_concurrent_processes: u64,
    /// Of `POST /v1/processes/run` without a timeout of its own.
    pub(crate) default_run_timeout_ms: u64,
    pub(crate) max_run_timeout_ms: u64,
    /// Of each stream of a run.
    pub(crate) max_output_bytes: u64,
    /// Kept of each process's output, the newest.
    pub(crate) max_log_bytes_per_process: u64,
    pub(crate) max_input_bytes_per_request: u64,
}

impl Default for ProcessConfig {
    fn default() -> Self {
        Self {
            max_concurrent_processes: 64,
            default_run_timeout_ms: 30_000,
            max_run_timeout_ms: 300_000,
            max_output_bytes: 1024 * 1024,
            max_log_bytes_per_process: 10 * 1024 * 1024,
            max_input_bytes_per_request: 64 * 1024,
        }
    }
}

/// Limits to change; what is left out stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ProcessConfigPatch {
    max_concurrent_processes: Option<u64>,
    default_run_timeout_ms: Option<u64>,
    max_run_timeout_ms: Option<u64>,
    max_output_bytes: Option<u64>,
    max_log_bytes_per_process: Option<u64>,
    max_input_bytes_per_request: Option<u64>,
}

/// What one request can make the server hold at once, whatever the configuration says.
const MOST_OUTPUT: u64 = 64 * 1024 * 1024;
const MOST_LOG: u64 = 4 * 1024 * 1024 * 1024;
const MOST_INPUT: u64 = 16 * 1024 * 1024;

impl ProcessConfig {
    /// These limits with some of them changed.
    pub(super) fn patched(self, patch: &ProcessConfigPatch) -> Result<Self, ProcessError> {
        let new = Self {
            max_concurrent_processes: patch
                .max_concurrent_processes
                .unwrap_or(self.max_concurrent_processes),
            default_run_timeout_ms: patch
                .default_run_timeout_ms
                .unwrap_or(self.default_run_timeout_ms),
            max_run_timeout_ms: patch.max_run_timeout_ms.unwrap_or(self.max_run_timeout_ms),
            max_output_bytes: patch.max_output_bytes.unwrap_or(self.max_output_bytes),
            max_log_bytes_per_process: patch
                .max_log_bytes_per_process
                .unwrap_or(self.max_log_bytes_per_process),
            max_input_bytes_per_request: patch
                .max_input_bytes_per_request
                .unwrap_or(self.max_input_bytes_per_request),
        };
        new.check()?;
        Ok(Self {
            // A default longer than what is allowed would be cut with every use.
            default_run_timeout_ms: new.default_run_timeout_ms.min(new.max_run_timeout_ms),
            ..new
        })
    }

    fn check(self) -> Result<(), ProcessError> {
        let invalid = |text: &str| Err(ProcessError::Invalid(text.to_owned()));
        if self.max_concurrent_processes == 0 {
            return invalid("maxConcurrentProcesses must be greater than 0");
        }
        if self.default_run_timeout_ms == 0 || self.max_run_timeout_ms == 0 {
            return invalid("timeouts must be greater than 0");
        }
        let bytes = [
            ("maxOutputBytes", self.max_output_bytes, MOST_OUTPUT),
            ("maxLogBytesPerProcess", self.max_log_bytes_per_process, MOST_LOG),
            ("maxInputBytesPerRequest", self.max_input_bytes_per_request, MOST_INPUT),
        ];
        for (name, bytes, most) in bytes {
            if bytes == 0 {
                return invalid("byte limits must be greater than 0");
            }
            if bytes > most {
                return Err(ProcessError::Invalid(format!("{name} must be at most {most}")));
            }
        }
        Ok(())
    }
}
