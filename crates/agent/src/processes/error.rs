//! Why something could not be done with a process.

use crate::problem::{Code, Problem};

use super::spawn::SpawnError;

#[derive(Debug, thiserror::Error)]
pub(crate) enum ProcessError {
    #[error("{0}")]
    Unknown(String),
    #[error("{0}")]
    Invalid(String),
    #[error("max concurrent process limit reached ({0})")]
    TooMany(u64),
    #[error("process is still running; stop or kill it before delete")]
    StillRunning,
    #[error("process is not running")]
    NotRunning,
    #[error("process is not running in tty mode")]
    NoTerminal,
    #[error("input payload exceeds maxInputBytesPerRequest ({0})")]
    TooMuchInput(u64),
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    #[error("could not {what}: {source}")]
    Os { what: &'static str, source: std::io::Error },
}

impl From<ProcessError> for Problem {
    fn from(error: ProcessError) -> Self {
        let text = error.to_string();
        match error {
            ProcessError::Unknown(id) => Self::not_found("process", &id),
            ProcessError::Invalid(_) => Self::invalid(text),
            ProcessError::TooMany(_)
            | ProcessError::StillRunning
            | ProcessError::NotRunning
            | ProcessError::NoTerminal => Self::conflict(text),
            ProcessError::TooMuchInput(_) => Self::new(Code::TooLarge, text),
            ProcessError::Spawn(error) => error.into(),
            ProcessError::Os { .. } => Self::new(Code::StreamError, text),
        }
    }
}
