//! `api_keys`: keys made while the server runs, as far as they are kept.

use ids::{KeyId, TenantId};
use jiff::Timestamp;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use crate::time::{micros, timestamp};
use crate::{Store, StoreError, Whose};

/// A key to keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewApiKey {
    pub id: KeyId,
    pub hash: Vec<u8>,
    pub tenant: TenantId,
    /// `admin` or `operator`.
    pub role: String,
    pub label: String,
    pub created_at: Timestamp,
    pub expires_at: Option<Timestamp>,
}

/// A key as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKeyRow {
    pub key: NewApiKey,
    pub revoked_at: Option<Timestamp>,
    pub last_used_at: Option<Timestamp>,
}

impl Store {
    pub async fn insert_api_key(&self, key: &NewApiKey) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO api_keys (id, hash, tenant, role, label, created_at, expires_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(key.id.as_str())
        .bind(&key.hash)
        .bind(key.tenant.as_str())
        .bind(&key.role)
        .bind(&key.label)
        .bind(micros(key.created_at))
        .bind(key.expires_at.map(micros))
        .execute(&self.writer)
        .await?;
        Ok(())
    }

    /// The key of a hash, revoked or not.
    pub async fn api_key(&self, hash: &[u8]) -> Result<Option<ApiKeyRow>, StoreError> {
        let row = sqlx::query("SELECT * FROM api_keys WHERE hash = $1")
            .bind(hash)
            .fetch_optional(&self.reader)
            .await?;
        row.as_ref().map(read).transpose()
    }

    /// All keys in sight, newest first.
    pub async fn api_keys(&self, whose: Whose<'_>) -> Result<Vec<ApiKeyRow>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM api_keys WHERE ($1 IS NULL OR tenant = $1)
             ORDER BY created_at DESC, id DESC",
        )
        .bind(whose.parameter())
        .fetch_all(&self.reader)
        .await?;
        rows.iter().map(read).collect()
    }

    /// Ends a key; tells whether it was there, in sight and not ended yet.
    pub async fn revoke_api_key(
        &self,
        whose: Whose<'_>,
        id: &KeyId,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let done = sqlx::query(
            "UPDATE api_keys SET revoked_at = $3
             WHERE ($1 IS NULL OR tenant = $1) AND id = $2 AND revoked_at IS NULL",
        )
        .bind(whose.parameter())
        .bind(id.as_str())
        .bind(micros(now))
        .execute(&self.writer)
        .await?;
        Ok(done.rows_affected() > 0)
    }

    /// Notes that a key was used.
    pub async fn touch_api_key(&self, id: &KeyId, now: Timestamp) -> Result<(), StoreError> {
        sqlx::query("UPDATE api_keys SET last_used_at = $2 WHERE id = $1")
            .bind(id.as_str())
            .bind(micros(now))
            .execute(&self.writer)
            .await?;
        Ok(())
    }
}

fn read(row: &SqliteRow) -> Result<ApiKeyRow, StoreError> {
    const CORRUPT: StoreError = StoreError::Corrupt { what: "API key" };
    let time = |name| row.try_get::<Option<i64>, _>(name).map(|time| time.map(timestamp));
    Ok(ApiKeyRow {
        key: NewApiKey {
            id: row.try_get::<&str, _>("id")?.parse().map_err(|_| CORRUPT)?,
            hash: row.try_get("hash")?,
            tenant: row.try_get::<&str, _>("tenant")?.parse().map_err(|_| CORRUPT)?,
            role: row.try_get("role")?,
            label: row.try_get("label")?,
            created_at: timestamp(row.try_get("created_at")?),
            expires_at: time("expires_at")?,
        },
        revoked_at: time("revoked_at")?,
        last_used_at: time("last_used_at")?,
    })
}
