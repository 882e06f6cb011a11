//! What clients are told when an agent fails.

use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::envelope::{Envelope, INTERNAL, raw};
use super::journal::JournalError;
use super::process::{AgentProcess, Exit};
use crate::problem::{Code, Problem};

pub(super) fn deaf(agent: &str) -> Problem {
    Problem::new(Code::Timeout, format!("{agent} does not read what it is sent"))
}

pub(super) fn exited(agent: &str, exit: &Exit) -> Problem {
    let code =
        exit.code.map_or_else(|| "by a signal".to_owned(), |code| format!("with code {code}"));
    Problem::new(Code::AgentProcessExited, format!("{agent} exited {code}"))
        .with("agent", agent)
        .with("details", json!({ "exitCode": exit.code, "stderr": exit.stderr }))
}

/// An error of the agent's, with what it printed beside it.
pub(super) fn with_stderr(envelope: Envelope, process: &AgentProcess) -> Envelope {
    let mut error = envelope.member("error");
    let stderr = process.stderr();
    if !error.is_object() || stderr.is_empty() {
        return envelope;
    }
    match &mut error["data"] {
        Value::Object(data) => {
            data.insert("agentStderr".to_owned(), stderr.into());
        }
        data @ Value::Null => *data = json!({ "agentStderr": stderr }),
        _ => return envelope,
    }
    envelope.with("error", &error)
}

/// A problem that shows up when the head of the answer is sent already.
pub(super) fn late(id: &RawValue, problem: &Problem) -> Box<RawValue> {
    let body = problem.body();
    let text = body["detail"].as_str().unwrap_or("failed").to_owned();
    raw_envelope(&Envelope::error(id, INTERNAL, &text, body))
}

pub(super) fn raw_envelope(envelope: &Envelope) -> Box<RawValue> {
    RawValue::from_string(envelope.text()).unwrap_or_else(|_| raw(&Value::Null))
}

impl From<JournalError> for Problem {
    fn from(error: JournalError) -> Self {
        match error {
            JournalError::Taken(_) | JournalError::Open { .. } => Self::conflict(error.to_string()),
            error => Self::internal(error),
        }
    }
}
