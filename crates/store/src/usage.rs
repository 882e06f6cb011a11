//! What a tenant has, for its quotas.

use ids::{TenantId, TreeId};

use crate::{Store, StoreError, signed, unsigned};

/// Counted over the rows of one tenant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    pub workspaces: u64,
    pub sessions: u64,
    pub snapshots: u64,
    /// Of sealed layers, and of what workspaces have written since, as last measured.
    pub bytes: u64,
}

impl Store {
    pub async fn usage(&self, tenant: &TenantId) -> Result<Usage, StoreError> {
        let (workspaces, sessions, snapshots, bytes): (i64, i64, i64, i64) = sqlx::query_as(
            "SELECT
                 (SELECT count(*) FROM workspaces WHERE tenant = $1 AND deleted_at IS NULL),
                 (SELECT count(*) FROM sessions WHERE tenant = $1),
                 (SELECT count(*) FROM snapshots WHERE tenant = $1),
                 (SELECT coalesce(sum(own_bytes), 0) FROM layers WHERE tenant = $1)
                 + (SELECT coalesce(sum(upper_bytes), 0) FROM workspaces
                    WHERE tenant = $1 AND deleted_at IS NULL)",
        )
        .bind(tenant.as_str())
        .fetch_one(&self.writer)
        .await?;
        Ok(Usage {
            workspaces: unsigned(workspaces),
            sessions: unsigned(sessions),
            snapshots: unsigned(snapshots),
            bytes: unsigned(bytes),
        })
    }

    /// Notes how much is written to a workspace's tree; tells whether it is one's.
    pub async fn note_written(&self, upper: &TreeId, bytes: u64) -> Result<bool, StoreError> {
        let done = sqlx::query(
            "UPDATE workspaces SET upper_bytes = $2 WHERE upper = $1 AND deleted_at IS NULL",
        )
        .bind(upper.as_str())
        .bind(signed(bytes))
        .execute(&self.writer)
        .await?;
        Ok(done.rows_affected() > 0)
    }
}
