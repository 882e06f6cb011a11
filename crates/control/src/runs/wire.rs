//! Runs over the wire.

use httpkit::{ApiError, Kind};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::exec::{Code, ExecOptions};
use crate::git::GitSpec;

/// Code to run. At `/workspace/<file>`, read-only; `/output` is writable.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct RunRequest {
    /// At most 1 MiB.
    pub(crate) code: String,
    /// `javascript` or `js` (the default), `python` or `py`, `bash` or `sh`.
    pub(crate) language: Option<String>,
    /// A session whose environment, and phantom proxy, the code gets.
    pub(crate) session_id: Option<String>,
    /// Repositories that the code finds in `/workspace`.
    pub(crate) git: Option<GitSpec>,
}

/// The body of a run, for the OpenAPI document: the code with the options.
#[derive(Debug, Deserialize, ToSchema)]
#[expect(dead_code, reason = "described, not read: the two parts are read by themselves")]
pub(crate) struct RunBody {
    #[serde(flatten)]
    run: RunRequest,
    #[serde(flatten)]
    options: ExecOptions,
}

const LONGEST_CODE: usize = 1024 * 1024;

/// Code in a language, and the file and runtime it means.
pub(super) fn code(language: &str, text: String) -> Result<Code, ApiError> {
    let invalid = |text: String| Err(ApiError::said(Kind::Invalid, text));
    if text.len() > LONGEST_CODE {
        return invalid("code exceeds 1 MB".to_owned());
    }
    let (runtime, file) = match language {
        "javascript" | "js" => ("node", "main.mjs"),
        "python" | "py" => ("python3", "main.py"),
        "bash" | "sh" => ("sh", "main.sh"),
        other => {
            let other: String = other.chars().take(64).collect();
            return invalid(format!("unsupported language: {other} (javascript, python or bash)"));
        }
    };
    Ok(Code { runtime, file, text: Some(text) })
}
