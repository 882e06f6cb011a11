//! What a tenant has, for its quotas.

use ids::TenantId;

use crate::{Store, StoreError, unsigned};

/// Counted over the rows of one tenant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    pub workspaces: u64,
    pub sessions: u64,
    pub snapshots: u64,
    /// Of sealed layers. What workspaces hold beyond them is counted where it is written.
    pub layer_bytes: u64,
}

impl Store {
    pub async fn usage(&self, tenant: &TenantId) -> Result<Usage, StoreError> {
        let (workspaces, sessions, snapshots, bytes): (i64, i64, i64, i64) = sqlx::query_as(
            "SELECT
                 (SELECT count(*) FROM workspaces WHERE tenant = $1 AND deleted_at IS NULL),
                 (SELECT count(*) FROM sessions WHERE tenant = $1),
                 (SELECT count(*) FROM snapshots WHERE tenant = $1),
                 (SELECT coalesce(sum(own_bytes), 0) FROM layers WHERE tenant = $1)",
        )
        .bind(tenant.as_str())
        .fetch_one(&self.writer)
        .await?;
        Ok(Usage {
            workspaces: unsigned(workspaces),
            sessions: unsigned(sessions),
            snapshots: unsigned(snapshots),
            layer_bytes: unsigned(bytes),
        })
    }
}
