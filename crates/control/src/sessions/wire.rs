//! Sessions over the wire.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::service::Opened;
use crate::exec::ExecOptions;

/// A session to make.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct CreateSession {
    #[serde(default)]
    pub(crate) services: Vec<String>,
    /// 1 second to 30 days; without it the session does not expire.
    #[schema(minimum = 1, maximum = 2_592_000)]
    pub(crate) ttl_secs: Option<u64>,
    /// Path globs by service. `*` is anything within a segment; at the end, or as `**`, anything.
    #[serde(default)]
    pub(crate) scopes: BTreeMap<String, Vec<String>>,
}

/// A session and the environment to hand to a sandbox.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SessionView {
    id: String,
    created_at: String,
    expires_at: Option<String>,
    services: Vec<String>,
    /// Phantom tokens and base URLs.
    env: BTreeMap<String, String>,
}

/// A command to run in a session's jail.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct ExecRequest {
    /// Looked up in the jail's `PATH` if it holds no slash.
    pub(crate) cmd: String,
    #[serde(default)]
    pub(crate) args: Vec<String>,
}

/// The body of an exec, for the OpenAPI document: the command with the options.
#[derive(Debug, Deserialize, ToSchema)]
#[expect(dead_code, reason = "described, not read: the two parts are read by themselves")]
pub(crate) struct ExecBody {
    #[serde(flatten)]
    command: ExecRequest,
    #[serde(flatten)]
    options: ExecOptions,
}

impl From<Opened> for SessionView {
    fn from(session: Opened) -> Self {
        Self {
            id: session.id.into(),
            created_at: session.created_at.to_string(),
            expires_at: session.expires_at.map(|end| end.to_string()),
            services: session.services.into_iter().map(Into::into).collect(),
            env: session.environment,
        }
    }
}
