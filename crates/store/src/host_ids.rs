//! `host_ids`: which host user a tenant's jails and files belong to.

use ids::TenantId;

use crate::{Store, StoreError, unsigned};

impl Store {
    /// A tenant's number, given at first use and never to another.
    pub async fn host_number(&self, tenant: &TenantId) -> Result<u64, StoreError> {
        let known: Option<i64> =
            sqlx::query_scalar("SELECT number FROM host_ids WHERE tenant = $1")
                .bind(tenant.as_str())
                .fetch_optional(&self.reader)
                .await?;
        if let Some(number) = known {
            return Ok(unsigned(number));
        }
        let number: i64 = sqlx::query_scalar(
            "INSERT INTO host_ids (tenant, number)
             SELECT $1, coalesce(max(number) + 1, 0) FROM host_ids WHERE true
             ON CONFLICT (tenant) DO UPDATE SET number = host_ids.number RETURNING number",
        )
        .bind(tenant.as_str())
        .fetch_one(&self.writer)
        .await?;
        Ok(unsigned(number))
    }
}
