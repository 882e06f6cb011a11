//! `workspaces` and `domains`.
//!
//! Sealing, forking, pausing and restoring are each one [`Change`]: all of it happens, or nothing.

use ids::{SnapshotId, TenantId, TreeId, WorkspaceId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::Row as _;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::types::Json;

use crate::layers::tree_id;
use crate::snapshots;
use crate::time::{micros, timestamp};
use crate::{Listed, Page, Snapshot, Store, StoreError, Whose, containing, signed, unsigned};

/// A workspace.
#[derive(Debug, Clone, PartialEq)]
pub struct Workspace {
    pub id: WorkspaceId,
    pub tenant: TenantId,
    pub created_at: Timestamp,
    pub deleted_at: Option<Timestamp>,
    /// The tree that is written to.
    pub upper: TreeId,
    /// The layer it is over.
    pub base: Option<TreeId>,
    /// Limits and network of its commands, as shown to the caller.
    pub config: Value,
    pub git_repo: Option<String>,
    pub git_ref: Option<String>,
    pub label: String,
    pub domains: Vec<Domain>,
    pub last_exec_at: Option<Timestamp>,
    pub paused_at: Option<Timestamp>,
    pub auto_snapshot: Option<SnapshotId>,
}

/// A host name, and where the gateway sends its requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Domain {
    /// In lower case.
    pub domain: String,
    #[serde(flatten)]
    pub target: Target,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    BackendUrl(String),
    /// A port inside the workspace's jail.
    VmPort(u16),
}

/// A layer to add.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewLayer {
    pub id: TreeId,
    pub tenant: TenantId,
    pub parent: Option<TreeId>,
    pub sealed_at: Timestamp,
    /// What it takes on disk; `None` if that is what its workspace was last found to take.
    pub bytes: Option<u64>,
}

/// What happens to a workspace, all or nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Change {
    pub layer: Option<NewLayer>,
    /// The workspace afterwards; only its base, upper, pause and automatic snapshot are kept.
    pub workspace: Option<Workspace>,
    pub snapshot: Option<Snapshot>,
    pub forks: Vec<Workspace>,
}

const MATCHES: &str = "WHERE deleted_at IS NULL AND ($1 IS NULL OR tenant = $1)
     AND ($2 IS NULL OR id LIKE $2 ESCAPE '\\' OR lower(label) LIKE $2 ESCAPE '\\'
         OR lower(coalesce(git_repo, '')) LIKE $2 ESCAPE '\\')";

impl Store {
    /// Adds a workspace. The error is the name that another live workspace has.
    pub async fn insert_workspace(
        &self,
        workspace: &Workspace,
    ) -> Result<Result<(), String>, StoreError> {
        let mut transaction = self.writer.begin().await?;
        for domain in &workspace.domains {
            let taken: Option<i64> = sqlx::query_scalar("SELECT 1 FROM domains WHERE domain = $1")
                .bind(&domain.domain)
                .fetch_optional(&mut *transaction)
                .await?;
            if taken.is_some() {
                return Ok(Err(domain.domain.clone()));
            }
        }
        insert(&mut transaction, workspace).await?;
        transaction.commit().await?;
        Ok(Ok(()))
    }

    /// One page of the live workspaces in sight, newest first.
    pub async fn workspaces(
        &self,
        whose: Whose<'_>,
        text: Option<&str>,
        page: Page,
    ) -> Result<Listed<Workspace>, StoreError> {
        let text = text.map(containing);
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
            "SELECT * FROM workspaces {MATCHES}
             ORDER BY created_at DESC, id DESC LIMIT $3 OFFSET $4"
        )))
        .bind(whose.parameter())
        .bind(&text)
        .bind(i64::from(page.limit))
        .bind(signed(page.offset))
        .fetch_all(&self.reader)
        .await?;
        let total: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(format!(
            "SELECT count(*) FROM workspaces {MATCHES}"
        )))
        .bind(whose.parameter())
        .bind(&text)
        .fetch_one(&self.reader)
        .await?;
        let rows = rows.iter().map(read).collect::<Result<_, _>>()?;
        Ok(Listed { rows, total: unsigned(total) })
    }

    /// One workspace, if it is in sight, deleted or not.
    pub async fn workspace(
        &self,
        whose: Whose<'_>,
        id: &WorkspaceId,
    ) -> Result<Option<Workspace>, StoreError> {
        let row =
            sqlx::query("SELECT * FROM workspaces WHERE ($1 IS NULL OR tenant = $1) AND id = $2")
                .bind(whose.parameter())
                .bind(id.as_str())
                .fetch_optional(&self.reader)
                .await?;
        row.as_ref().map(read).transpose()
    }

    /// The live workspace of a host name (in lower case).
    pub async fn workspace_of_domain(&self, domain: &str) -> Result<Option<Workspace>, StoreError> {
        let row = sqlx::query(
            "SELECT workspaces.* FROM domains JOIN workspaces ON workspaces.id = domains.workspace
             WHERE domains.domain = $1 AND deleted_at IS NULL",
        )
        .bind(domain)
        .fetch_optional(&self.reader)
        .await?;
        row.as_ref().map(read).transpose()
    }

    /// Live workspaces that are not paused and had no command since their idle time.
    pub async fn idle_workspaces(&self, now: Timestamp) -> Result<Vec<Workspace>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM workspaces
             WHERE deleted_at IS NULL AND paused_at IS NULL
                 AND config ->> 'idle_timeout_secs' > 0
                 AND $1 - coalesce(last_exec_at, created_at)
                     >= (config ->> 'idle_timeout_secs') * 1000000",
        )
        .bind(micros(now))
        .fetch_all(&self.reader)
        .await?;
        rows.iter().map(read).collect()
    }

    pub async fn rename_workspace(&self, id: &WorkspaceId, label: &str) -> Result<(), StoreError> {
        sqlx::query("UPDATE workspaces SET label = $2 WHERE id = $1")
            .bind(id.as_str())
            .bind(label)
            .execute(&self.writer)
            .await?;
        Ok(())
    }

    /// Notes that a command began, which also ends a pause.
    pub async fn touch_workspace(&self, id: &WorkspaceId, at: Timestamp) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE workspaces SET last_exec_at = $2, paused_at = NULL, auto_snapshot = NULL
             WHERE id = $1",
        )
        .bind(id.as_str())
        .bind(micros(at))
        .execute(&self.writer)
        .await?;
        Ok(())
    }

    /// Notes that a command ended.
    pub async fn note_exec_end(&self, id: &WorkspaceId, at: Timestamp) -> Result<(), StoreError> {
        sqlx::query("UPDATE workspaces SET last_exec_at = $2 WHERE id = $1")
            .bind(id.as_str())
            .bind(micros(at))
            .execute(&self.writer)
            .await?;
        Ok(())
    }

    /// Marks a workspace as deleted, and lets go of its trees and names.
    pub async fn delete_workspace(
        &self,
        id: &WorkspaceId,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let mut transaction = self.writer.begin().await?;
        let done = sqlx::query(
            "UPDATE workspaces SET deleted_at = $2, base = NULL, auto_snapshot = NULL
             WHERE id = $1 AND deleted_at IS NULL",
        )
        .bind(id.as_str())
        .bind(micros(now))
        .execute(&mut *transaction)
        .await?;
        sqlx::query("DELETE FROM domains WHERE workspace = $1")
            .bind(id.as_str())
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(done.rows_affected() > 0)
    }

    /// Makes a change.
    pub async fn change(&self, change: &Change) -> Result<(), StoreError> {
        let mut transaction = self.writer.begin().await?;
        if let Some(layer) = &change.layer {
            sqlx::query(
                "INSERT INTO layers (id, tenant, tree, parent, sealed_at, own_bytes)
                 VALUES ($1, $2, $1, $3, $4,
                     coalesce($5, (SELECT upper_bytes FROM workspaces WHERE upper = $1)))",
            )
            .bind(layer.id.as_str())
            .bind(layer.tenant.as_str())
            .bind(layer.parent.as_ref().map(TreeId::as_str))
            .bind(micros(layer.sealed_at))
            .bind(layer.bytes.map(signed))
            .execute(&mut *transaction)
            .await?;
        }
        if let Some(workspace) = &change.workspace {
            sqlx::query(
                "UPDATE workspaces SET base = $2, upper = $3, paused_at = $4, auto_snapshot = $5,
                     upper_bytes = CASE WHEN upper = $3 THEN upper_bytes ELSE 0 END
                 WHERE id = $1",
            )
            .bind(workspace.id.as_str())
            .bind(workspace.base.as_ref().map(TreeId::as_str))
            .bind(workspace.upper.as_str())
            .bind(workspace.paused_at.map(micros))
            .bind(workspace.auto_snapshot.as_ref().map(SnapshotId::as_str))
            .execute(&mut *transaction)
            .await
            .map_err(|error| gone(error.into()))?;
        }
        if let Some(snapshot) = &change.snapshot {
            snapshots::insert(&mut transaction, snapshot).await?;
        }
        for fork in &change.forks {
            insert(&mut transaction, fork).await.map_err(gone)?;
        }
        transaction.commit().await?;
        Ok(())
    }
}

/// Tells what refers to nothing from other failures.
fn gone(error: StoreError) -> StoreError {
    match error {
        StoreError::Query(sqlx::Error::Database(error)) if error.is_foreign_key_violation() => {
            StoreError::Gone
        }
        error => error,
    }
}

async fn insert(
    connection: &mut SqliteConnection,
    workspace: &Workspace,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO workspaces (id, tenant, created_at, upper, base, config, git_repo, git_ref,
             label, domains)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    )
    .bind(workspace.id.as_str())
    .bind(workspace.tenant.as_str())
    .bind(micros(workspace.created_at))
    .bind(workspace.upper.as_str())
    .bind(workspace.base.as_ref().map(TreeId::as_str))
    .bind(Json(&workspace.config))
    .bind(&workspace.git_repo)
    .bind(&workspace.git_ref)
    .bind(&workspace.label)
    .bind(Json(&workspace.domains))
    .execute(&mut *connection)
    .await?;
    for domain in &workspace.domains {
        sqlx::query("INSERT INTO domains (domain, workspace, target) VALUES ($1, $2, $3)")
            .bind(&domain.domain)
            .bind(workspace.id.as_str())
            .bind(Json(&domain.target))
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

fn read(row: &SqliteRow) -> Result<Workspace, StoreError> {
    const CORRUPT: StoreError = StoreError::Corrupt { what: "workspace" };
    let time = |name| row.try_get::<Option<i64>, _>(name).map(|time| time.map(timestamp));
    let config: Json<Value> = row.try_get("config")?;
    let domains: Json<Vec<Domain>> = row.try_get("domains")?;
    let base: Option<&str> = row.try_get("base")?;
    let auto_snapshot: Option<&str> = row.try_get("auto_snapshot")?;
    Ok(Workspace {
        id: row.try_get::<&str, _>("id")?.parse().map_err(|_| CORRUPT)?,
        tenant: row.try_get::<&str, _>("tenant")?.parse().map_err(|_| CORRUPT)?,
        created_at: timestamp(row.try_get("created_at")?),
        deleted_at: time("deleted_at")?,
        upper: tree_id(row, "upper")?,
        base: base.map(str::parse).transpose().map_err(|_| CORRUPT)?,
        config: config.0,
        git_repo: row.try_get("git_repo")?,
        git_ref: row.try_get("git_ref")?,
        label: row.try_get("label")?,
        domains: domains.0,
        last_exec_at: time("last_exec_at")?,
        paused_at: time("paused_at")?,
        auto_snapshot: auto_snapshot.map(str::parse).transpose().map_err(|_| CORRUPT)?,
    })
}
