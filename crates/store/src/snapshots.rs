//! `snapshots`: names for layers, each with where it came from.

use ids::{SnapshotId, TenantId, TreeId, WorkspaceId};
use jiff::Timestamp;
use serde_json::Value;
use sqlx::Row as _;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::types::Json;

use crate::layers::{LayerTotals, tree_id};
use crate::time::{micros, timestamp};
use crate::{Listed, Page, Store, StoreError, Whose, containing, signed, unsigned};

/// A workspace as it was at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    pub id: SnapshotId,
    pub tenant: TenantId,
    pub workspace: Option<WorkspaceId>,
    pub name: Option<String>,
    pub created_at: Timestamp,
    pub layer: TreeId,
}

/// A snapshot, and what is known of what it shows.
#[derive(Debug, Clone, PartialEq)]
pub struct SnapshotRow {
    pub snapshot: Snapshot,
    /// The topmost tree.
    pub tree: TreeId,
    /// Known once its manifest is written.
    pub totals: Option<SnapshotTotals>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct SnapshotTotals {
    pub bytes: u64,
    pub files: u64,
    /// What was not kept, as shown to the caller.
    pub left_out: Value,
}

impl From<LayerTotals> for SnapshotTotals {
    fn from(totals: LayerTotals) -> Self {
        Self { bytes: totals.bytes, files: totals.files, left_out: totals.left_out }
    }
}

/// Which rows are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SnapshotFilter {
    pub workspace: Option<String>,
    /// Found anywhere in id, name or workspace, in any case.
    pub text: Option<String>,
}

const COLUMNS: &str = "snapshots.*, layers.tree, layers.manifest, layers.bytes, layers.files,
     layers.left_out";
const TABLES: &str = "snapshots JOIN layers ON layers.id = snapshots.layer";
const MATCHES: &str = "WHERE ($1 IS NULL OR snapshots.tenant = $1)
     AND ($2 IS NULL OR workspace = $2)
     AND ($3 IS NULL OR snapshots.id LIKE $3 ESCAPE '\\'
         OR lower(coalesce(name, '')) LIKE $3 ESCAPE '\\'
         OR coalesce(workspace, '') LIKE $3 ESCAPE '\\')";

impl Store {
    /// One page of the rows in sight, newest first.
    pub async fn snapshots(
        &self,
        whose: Whose<'_>,
        filter: &SnapshotFilter,
        page: Page,
    ) -> Result<Listed<SnapshotRow>, StoreError> {
        let text = filter.text.as_deref().map(containing);
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
            "SELECT {COLUMNS} FROM {TABLES} {MATCHES}
             ORDER BY created_at DESC, snapshots.id DESC LIMIT $4 OFFSET $5"
        )))
        .bind(whose.parameter())
        .bind(&filter.workspace)
        .bind(&text)
        .bind(i64::from(page.limit))
        .bind(signed(page.offset))
        .fetch_all(&self.reader)
        .await?;
        let total: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(format!(
            "SELECT count(*) FROM snapshots {MATCHES}"
        )))
        .bind(whose.parameter())
        .bind(&filter.workspace)
        .bind(&text)
        .fetch_one(&self.reader)
        .await?;
        let rows = rows.iter().map(read_row).collect::<Result<_, _>>()?;
        Ok(Listed { rows, total: unsigned(total) })
    }

    /// One snapshot, if it is in sight.
    pub async fn snapshot(
        &self,
        whose: Whose<'_>,
        id: &SnapshotId,
    ) -> Result<Option<SnapshotRow>, StoreError> {
        let row = sqlx::query(sqlx::AssertSqlSafe(format!(
            "SELECT {COLUMNS} FROM {TABLES}
             WHERE ($1 IS NULL OR snapshots.tenant = $1) AND snapshots.id = $2"
        )))
        .bind(whose.parameter())
        .bind(id.as_str())
        .fetch_optional(&self.reader)
        .await?;
        row.as_ref().map(read_row).transpose()
    }

    /// A snapshot of a workspace by its name and layer.
    pub async fn named_snapshot(
        &self,
        workspace: &WorkspaceId,
        name: &str,
        layer: &TreeId,
    ) -> Result<Option<SnapshotId>, StoreError> {
        let found: Option<String> = sqlx::query_scalar(
            "SELECT id FROM snapshots WHERE workspace = $1 AND name = $2 AND layer = $3
             ORDER BY created_at DESC LIMIT 1",
        )
        .bind(workspace.as_str())
        .bind(name)
        .bind(layer.as_str())
        .fetch_optional(&self.writer)
        .await?;
        let corrupt = |_| StoreError::Corrupt { what: "snapshot id" };
        found.map(|id| id.parse().map_err(corrupt)).transpose()
    }

    /// The newest snapshot of a workspace with a name.
    pub async fn newest_snapshot_named(
        &self,
        workspace: &WorkspaceId,
        name: &str,
    ) -> Result<Option<SnapshotId>, StoreError> {
        let found: Option<String> = sqlx::query_scalar(
            "SELECT id FROM snapshots WHERE workspace = $1 AND name = $2
             ORDER BY created_at DESC LIMIT 1",
        )
        .bind(workspace.as_str())
        .bind(name)
        .fetch_optional(&self.reader)
        .await?;
        let corrupt = |_| StoreError::Corrupt { what: "snapshot id" };
        found.map(|id| id.parse().map_err(corrupt)).transpose()
    }

    /// The paused workspace that a snapshot will bring back, if there is one.
    pub async fn waiting_for(&self, id: &SnapshotId) -> Result<Option<WorkspaceId>, StoreError> {
        let found: Option<String> = sqlx::query_scalar(
            "SELECT id FROM workspaces WHERE auto_snapshot = $1 AND deleted_at IS NULL",
        )
        .bind(id.as_str())
        .fetch_optional(&self.reader)
        .await?;
        let corrupt = |_| StoreError::Corrupt { what: "workspace id" };
        found.map(|id| id.parse().map_err(corrupt)).transpose()
    }

    /// Removes a snapshot, unless a paused workspace waits for it; tells whether it was there, in
    /// sight, and removed.
    pub async fn delete_snapshot(
        &self,
        whose: Whose<'_>,
        id: &SnapshotId,
    ) -> Result<bool, StoreError> {
        let done = sqlx::query(
            "DELETE FROM snapshots WHERE ($1 IS NULL OR tenant = $1) AND id = $2
             AND NOT EXISTS (SELECT 1 FROM workspaces
                 WHERE auto_snapshot = snapshots.id AND deleted_at IS NULL)",
        )
        .bind(whose.parameter())
        .bind(id.as_str())
        .execute(&self.writer)
        .await?;
        Ok(done.rows_affected() > 0)
    }

    /// Removes snapshots made before a moment, and those beyond a number a tenant, the oldest first;
    /// never one that a paused workspace waits for. Gives how many.
    pub async fn delete_old_snapshots(
        &self,
        before: Option<Timestamp>,
        kept: Option<u64>,
    ) -> Result<u64, StoreError> {
        let done = sqlx::query(
            "DELETE FROM snapshots WHERE id IN (
                 SELECT id FROM (
                     SELECT id, created_at,
                         row_number() OVER (PARTITION BY tenant ORDER BY created_at DESC, id DESC)
                             AS newer
                     FROM snapshots
                     WHERE NOT EXISTS (SELECT 1 FROM workspaces
                         WHERE auto_snapshot = snapshots.id AND deleted_at IS NULL)
                 ) AS aged
                 WHERE ($1 IS NOT NULL AND created_at < $1) OR ($2 IS NOT NULL AND newer > $2)
             )",
        )
        .bind(before.map(micros))
        .bind(kept.map(signed))
        .execute(&self.writer)
        .await?;
        Ok(done.rows_affected())
    }
}

pub(crate) async fn insert(
    connection: &mut SqliteConnection,
    snapshot: &Snapshot,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO snapshots (id, tenant, workspace, name, created_at, layer)
         VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(snapshot.id.as_str())
    .bind(snapshot.tenant.as_str())
    .bind(snapshot.workspace.as_ref().map(WorkspaceId::as_str))
    .bind(&snapshot.name)
    .bind(micros(snapshot.created_at))
    .bind(snapshot.layer.as_str())
    .execute(connection)
    .await?;
    Ok(())
}

fn read_row(row: &SqliteRow) -> Result<SnapshotRow, StoreError> {
    let number =
        |name| row.try_get::<Option<i64>, _>(name).map(|n| unsigned(n.unwrap_or_default()));
    let left_out: Option<Json<Value>> = row.try_get("left_out")?;
    let totals = match row.try_get::<Option<Vec<u8>>, _>("manifest")? {
        None => None,
        Some(_) => Some(SnapshotTotals {
            bytes: number("bytes")?,
            files: number("files")?,
            left_out: left_out.map_or(Value::Null, |left_out| left_out.0),
        }),
    };
    Ok(SnapshotRow { snapshot: read(row)?, tree: tree_id(row, "tree")?, totals })
}

fn read(row: &SqliteRow) -> Result<Snapshot, StoreError> {
    const CORRUPT: StoreError = StoreError::Corrupt { what: "snapshot" };
    let workspace: Option<&str> = row.try_get("workspace")?;
    Ok(Snapshot {
        id: row.try_get::<&str, _>("id")?.parse().map_err(|_| CORRUPT)?,
        tenant: row.try_get::<&str, _>("tenant")?.parse().map_err(|_| CORRUPT)?,
        workspace: workspace.map(str::parse).transpose().map_err(|_| CORRUPT)?,
        name: row.try_get("name")?,
        created_at: timestamp(row.try_get("created_at")?),
        layer: tree_id(row, "layer")?,
    })
}
