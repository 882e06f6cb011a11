//! The rules of keys.

use std::sync::Arc;

use ids::{KeyId, TenantId};
use jiff::{SignedDuration, Timestamp};
use secret::{Secret, Vault};
use store::{ApiKeyRow, NewApiKey, Store, StoreError, Whose};

use super::configured::ApiKeys;
use crate::caller::{Caller, Role};

/// How long a use may go unnoted: writing each down would cost more than the request.
const NOTED_EVERY: SignedDuration = SignedDuration::from_secs(60);

const LONGEST_TTL_SECS: u64 = 10 * 365 * 24 * 3600;

/// Why a key was not made or ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyProblem {
    #[error("ttl_secs must be from 1 to {LONGEST_TTL_SECS}")]
    Ttl,
    #[error("key {0}")]
    Missing(String),
    #[error("the store failed")]
    Store(#[from] StoreError),
}

/// Who a token is. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    configured: Arc<ApiKeys>,
    store: Store,
    vault: Arc<Vault>,
}

impl Keys {
    pub(crate) fn new(configured: ApiKeys, store: Store, vault: Arc<Vault>) -> Self {
        Self { configured: Arc::new(configured), store, vault }
    }

    /// Who presented a token.
    pub(crate) async fn authenticate(&self, token: &str) -> Result<Option<Caller>, StoreError> {
        if let Some(caller) = self.configured.authenticate(&self.vault, token) {
            return Ok(Some(caller));
        }
        // Found by a keyed hash: how long the look-up takes tells nothing of any key.
        let Some(row) = self.store.api_key(&self.vault.api_key_hash(token)).await? else {
            return Ok(None);
        };
        let now = Timestamp::now();
        if row.revoked_at.is_some() || row.key.expires_at.is_some_and(|end| end <= now) {
            return Ok(None);
        }
        if row.last_used_at.is_none_or(|last| now.duration_since(last) > NOTED_EVERY) {
            self.store.touch_api_key(&row.key.id, now).await?;
        }
        let role = if row.key.role == "admin" { Role::Admin } else { Role::Operator };
        Ok(Some(Caller { tenant: row.key.tenant, role }))
    }

    /// Makes a key. It is given once, and kept nowhere.
    pub(crate) async fn create(
        &self,
        tenant: TenantId,
        role: Role,
        label: String,
        ttl_secs: Option<u64>,
    ) -> Result<(Secret, ApiKeyRow), KeyProblem> {
        if ttl_secs.is_some_and(|secs| !(1..=LONGEST_TTL_SECS).contains(&secs)) {
            return Err(KeyProblem::Ttl);
        }
        let random = Vault::random_master_key();
        let token: String = random.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let token = Secret::new(format!("aj_{token}"));
        let created_at = store::now();
        let lasts = ttl_secs.and_then(|secs| i64::try_from(secs).ok());
        let key = NewApiKey {
            id: KeyId::random(),
            hash: self.vault.api_key_hash(token.expose()),
            tenant,
            role: if role == Role::Admin { "admin" } else { "operator" }.to_owned(),
            label,
            created_at,
            expires_at: lasts.map(|secs| created_at + SignedDuration::from_secs(secs)),
        };
        self.store.insert_api_key(&key).await?;
        Ok((token, ApiKeyRow { key, revoked_at: None, last_used_at: None }))
    }

    pub(crate) async fn list(&self, whose: Whose<'_>) -> Result<Vec<ApiKeyRow>, KeyProblem> {
        Ok(self.store.api_keys(whose).await?)
    }

    /// Ends a key, from the next request on.
    pub(crate) async fn revoke(&self, whose: Whose<'_>, id: &str) -> Result<(), KeyProblem> {
        let missing = || KeyProblem::Missing(id.chars().take(64).collect());
        let id: KeyId = id.parse().map_err(|_| missing())?;
        if self.store.revoke_api_key(whose, &id, Timestamp::now()).await? {
            Ok(())
        } else {
            Err(missing())
        }
    }
}
