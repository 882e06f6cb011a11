//! `credentials`: a tenant's real keys, sealed.

use ids::{ServiceId, TenantId};
use jiff::Timestamp;
use secret::Sealed;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use crate::time::{micros, timestamp};
use crate::{Store, StoreError, Whose};

/// A key and what may be told about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    pub tenant: TenantId,
    pub service: ServiceId,
    pub sealed: Sealed,
    pub fingerprint: String,
    pub added_at: Timestamp,
    pub updated_at: Timestamp,
}

impl Store {
    /// Adds a key or puts it in the place of a former one, whose `added_at` stays. Gives what is
    /// stored now.
    pub async fn put_credential(&self, credential: &Credential) -> Result<Credential, StoreError> {
        let row = sqlx::query(
            "INSERT INTO credentials (tenant, service, sealed, fingerprint, added_at, updated_at)
             VALUES ($1, $2, $3, $4, $5, $6)
             ON CONFLICT (tenant, service) DO UPDATE SET
                 sealed = excluded.sealed,
                 fingerprint = excluded.fingerprint,
                 updated_at = excluded.updated_at
             RETURNING *",
        )
        .bind(credential.tenant.as_str())
        .bind(credential.service.as_str())
        .bind(credential.sealed.as_bytes())
        .bind(&credential.fingerprint)
        .bind(micros(credential.added_at))
        .bind(micros(credential.updated_at))
        .fetch_one(&self.writer)
        .await?;
        read(&row)
    }

    /// All keys in sight, by tenant and service.
    pub async fn credentials(&self, whose: Whose<'_>) -> Result<Vec<Credential>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM credentials WHERE ($1 IS NULL OR tenant = $1) ORDER BY tenant, service",
        )
        .bind(whose.parameter())
        .fetch_all(&self.reader)
        .await?;
        rows.iter().map(read).collect()
    }

    /// Removes a key; tells whether there was one.
    pub async fn delete_credential(
        &self,
        tenant: &TenantId,
        service: &ServiceId,
    ) -> Result<bool, StoreError> {
        let done = sqlx::query("DELETE FROM credentials WHERE tenant = $1 AND service = $2")
            .bind(tenant.as_str())
            .bind(service.as_str())
            .execute(&self.writer)
            .await?;
        Ok(done.rows_affected() > 0)
    }
}

fn read(row: &SqliteRow) -> Result<Credential, StoreError> {
    let corrupt = |_| StoreError::Corrupt { what: "credential" };
    Ok(Credential {
        tenant: row.try_get::<&str, _>("tenant")?.parse().map_err(corrupt)?,
        service: row.try_get::<&str, _>("service")?.parse().map_err(corrupt)?,
        sealed: Sealed::from_bytes(row.try_get("sealed")?),
        fingerprint: row.try_get("fingerprint")?,
        added_at: timestamp(row.try_get("added_at")?),
        updated_at: timestamp(row.try_get("updated_at")?),
    })
}
