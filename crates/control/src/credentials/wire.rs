//! Credentials over the wire.

use serde::{Deserialize, Serialize};
use store::Credential;
use utoipa::ToSchema;

/// A key to keep.
#[derive(Deserialize, ToSchema)]
pub(crate) struct PutCredential {
    /// `openai`, `anthropic`, `github`, `stripe`, or a configured name.
    pub(crate) service: String,
    /// The real key.
    pub(crate) secret: String,
}

/// What may be told of a key.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CredentialRecord {
    tenant_id: String,
    service: String,
    added_at: String,
    updated_at: String,
    /// The same for the same key; useless for guessing it.
    fingerprint: String,
}

impl From<Credential> for CredentialRecord {
    fn from(credential: Credential) -> Self {
        Self {
            tenant_id: credential.tenant.into(),
            service: credential.service.into(),
            added_at: credential.added_at.to_string(),
            updated_at: credential.updated_at.to_string(),
            fingerprint: credential.fingerprint,
        }
    }
}
