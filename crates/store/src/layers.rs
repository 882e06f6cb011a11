//! `layers`: sealed trees, and which stands over which.

use ids::{TenantId, TreeId};
use serde_json::Value;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;
use sqlx::types::Json;

use crate::{Store, StoreError, signed, unsigned};

/// A sealed tree.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    pub id: TreeId,
    pub tenant: TenantId,
    /// The directory it is in.
    pub tree: TreeId,
    pub parent: Option<TreeId>,
    /// Known once its manifest is written.
    pub totals: Option<LayerTotals>,
}

/// What a manifest tells in sum.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerTotals {
    /// Hash of the manifest.
    pub manifest: Vec<u8>,
    /// Of everything seen through the layer.
    pub bytes: u64,
    pub files: u64,
    /// Of what is its own.
    pub own_bytes: u64,
    /// What was not kept, as shown to the caller.
    pub left_out: Value,
}

impl Store {
    /// A layer and those below it, the topmost first.
    pub async fn chain(&self, top: &TreeId) -> Result<Vec<Layer>, StoreError> {
        let rows = sqlx::query(
            "WITH RECURSIVE chain (at, id) AS (
                 SELECT 0, $1
                 UNION ALL
                 SELECT chain.at + 1, layers.parent FROM chain JOIN layers ON layers.id = chain.id
                 WHERE layers.parent IS NOT NULL
             )
             SELECT layers.* FROM chain JOIN layers ON layers.id = chain.id ORDER BY chain.at",
        )
        .bind(top.as_str())
        .fetch_all(&self.reader)
        .await?;
        rows.iter().map(read).collect()
    }

    /// Notes that a layer's manifest is written.
    pub async fn set_manifest(&self, id: &TreeId, totals: &LayerTotals) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE layers SET manifest = $2, bytes = $3, files = $4, own_bytes = $5, left_out = $6
             WHERE id = $1",
        )
        .bind(id.as_str())
        .bind(&totals.manifest)
        .bind(signed(totals.bytes))
        .bind(signed(totals.files))
        .bind(signed(totals.own_bytes))
        .bind(Json(&totals.left_out))
        .execute(&self.writer)
        .await?;
        Ok(())
    }

    /// Puts one tree in the place of a layer and of all below it.
    pub async fn squash(
        &self,
        id: &TreeId,
        tree: &TreeId,
        totals: &LayerTotals,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE layers SET tree = $2, parent = NULL, manifest = $3, own_bytes = $4 WHERE id = $1",
        )
        .bind(id.as_str())
        .bind(tree.as_str())
        .bind(&totals.manifest)
        .bind(signed(totals.own_bytes))
        .execute(&self.writer)
        .await?;
        Ok(())
    }

    /// Layers whose manifest is not written, those below others first.
    pub async fn layers_without_manifest(&self) -> Result<Vec<Layer>, StoreError> {
        let rows =
            sqlx::query("SELECT * FROM layers WHERE manifest IS NULL ORDER BY sealed_at, id")
                .fetch_all(&self.reader)
                .await?;
        rows.iter().map(read).collect()
    }

    /// Removes the rows of layers that nothing refers to; gives how many. What only such a layer
    /// referred to is unreferenced then: ask again until there are none.
    pub async fn delete_unreferenced_layers(&self) -> Result<u64, StoreError> {
        let done = sqlx::query(
            "DELETE FROM layers
             WHERE NOT EXISTS (SELECT 1 FROM workspaces WHERE workspaces.base = layers.id)
                 AND NOT EXISTS (SELECT 1 FROM snapshots WHERE snapshots.layer = layers.id)
                 AND NOT EXISTS (SELECT 1 FROM layers AS above WHERE above.parent = layers.id)",
        )
        .execute(&self.writer)
        .await?;
        Ok(done.rows_affected())
    }

    /// Every tree that a row refers to.
    pub async fn trees(&self) -> Result<Vec<TreeId>, StoreError> {
        let rows = sqlx::query(
            "SELECT tree FROM layers
             UNION ALL SELECT upper FROM workspaces WHERE deleted_at IS NULL",
        )
        .fetch_all(&self.reader)
        .await?;
        rows.iter().map(|row| tree_id(row, "tree")).collect()
    }

    /// The trees of a tenant's layers.
    pub async fn layers_of(&self, tenant: &TenantId) -> Result<Vec<Layer>, StoreError> {
        let rows = sqlx::query("SELECT * FROM layers WHERE tenant = $1")
            .bind(tenant.as_str())
            .fetch_all(&self.reader)
            .await?;
        rows.iter().map(read).collect()
    }
}

fn read(row: &SqliteRow) -> Result<Layer, StoreError> {
    const CORRUPT: StoreError = StoreError::Corrupt { what: "layer" };
    let number =
        |name| row.try_get::<Option<i64>, _>(name).map(|n| unsigned(n.unwrap_or_default()));
    let parent: Option<&str> = row.try_get("parent")?;
    let left_out: Option<Json<Value>> = row.try_get("left_out")?;
    let totals = match row.try_get::<Option<Vec<u8>>, _>("manifest")? {
        None => None,
        Some(manifest) => Some(LayerTotals {
            manifest,
            bytes: number("bytes")?,
            files: number("files")?,
            own_bytes: number("own_bytes")?,
            left_out: left_out.map_or(Value::Null, |left_out| left_out.0),
        }),
    };
    Ok(Layer {
        id: tree_id(row, "id")?,
        tenant: row.try_get::<&str, _>("tenant")?.parse().map_err(|_| CORRUPT)?,
        tree: tree_id(row, "tree")?,
        parent: parent.map(str::parse).transpose().map_err(|_| CORRUPT)?,
        totals,
    })
}

pub(crate) fn tree_id(row: &SqliteRow, column: &str) -> Result<TreeId, StoreError> {
    let text: &str = row.try_get(column)?;
    text.parse().map_err(|_| StoreError::Corrupt { what: "tree id" })
}
