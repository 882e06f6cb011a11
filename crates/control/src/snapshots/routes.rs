//! `/v1/snapshots`

use std::io;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::IntoResponse;
use httpkit::{ApiError, Kind, Path, Query};
use ids::{SnapshotId, TenantId, TreeId};
use serde::Deserialize;
use snapshot::{ArchiveError, Difference, ManifestError, Stratum};
use store::{Page, Snapshot, SnapshotFilter, SnapshotRow, SnapshotTotals};
use utoipa::IntoParams;

use super::entries;
use super::wire::{
    ChangedEntry, DiffTotals, SnapshotDiff, SnapshotList, SnapshotManifest, SnapshotView, Verified,
};
use crate::app::App;
use crate::caller::Caller;
use crate::edge::internal;
use crate::exec::Place;
use crate::jails::{DEFAULT_LIMIT, MOST_ROWS, capped};
use crate::layers::{Chain, LayerError, blocking};
use crate::openapi::ErrorBody;
use httpkit::produced;

/// Differences that are listed.
const LISTED: u32 = 1000;
const MOST_LISTED: u32 = 10_000;

/// Which snapshots are wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct SnapshotQuery {
    workspace_id: Option<String>,
    /// Default 50, at most 500.
    limit: Option<u64>,
    offset: Option<u64>,
    /// Found anywhere in id, name or workspace, in any case.
    q: Option<String>,
    /// For admins: whose.
    #[param(value_type = Option<String>)]
    tenant: Option<TenantId>,
}

/// With what to compare.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct DiffQuery {
    /// The snapshot that counts as before.
    against: String,
    /// Differences listed; default 1000, at most 10000.
    limit: Option<u64>,
}

/// `GET /v1/snapshots`
#[utoipa::path(get, path = "/v1/snapshots", tag = "snapshots", params(SnapshotQuery), responses(
    (status = 200, description = "Newest first", body = SnapshotList),
    (status = 400, description = "A parameter of the wrong type", body = ErrorBody),
    (status = 404, description = "Another tenant", body = ErrorBody),
))]
pub(crate) async fn list(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<SnapshotQuery>,
) -> Result<axum::Json<SnapshotList>, ApiError> {
    let page = Page {
        limit: capped(query.limit, DEFAULT_LIMIT, MOST_ROWS),
        offset: query.offset.unwrap_or_default(),
    };
    let filter = SnapshotFilter {
        workspace: query.workspace_id,
        text: query.q.map(|q| q.trim().to_owned()).filter(|q| !q.is_empty()),
    };
    let whose = caller.sees(query.tenant.as_ref())?;
    let listed = app.store.snapshots(whose, &filter, page).await.map_err(internal)?;
    let mut rows = Vec::with_capacity(listed.rows.len());
    for row in listed.rows {
        rows.push(listed_as(&app, &caller, row).await);
    }
    let (limit, offset) = (page.limit, page.offset);
    Ok(axum::Json(SnapshotList { rows, total: listed.total, limit, offset }))
}

/// `GET /v1/snapshots/{id}`
#[utoipa::path(get, path = "/v1/snapshots/{id}", tag = "snapshots", params(("id" = String, Path)),
    responses(
    (status = 200, description = "The snapshot", body = SnapshotView),
    (status = 404, description = "There is none", body = ErrorBody),
))]
pub(crate) async fn get(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<axum::Json<SnapshotView>, ApiError> {
    let row = find(&app, &caller, &id).await?;
    Ok(axum::Json(shown(&app, &caller, row, None).await?))
}

/// `DELETE /v1/snapshots/{id}`
#[utoipa::path(delete, path = "/v1/snapshots/{id}", tag = "snapshots", params(("id" = String, Path)),
    responses(
    (status = 204, description = "Gone"),
    (status = 404, description = "There is none", body = ErrorBody),
    (status = 409, description = "A paused workspace goes on from it", body = ErrorBody),
))]
pub(crate) async fn delete(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let found = find(&app, &caller, &id).await?.snapshot;
    if !app.store.delete_snapshot(caller.sees(None)?, &found.id).await.map_err(internal)? {
        let waiting = app.store.waiting_for(&found.id).await.map_err(internal)?;
        return Err(match waiting {
            Some(workspace) => ApiError::said(
                Kind::Conflict,
                format!(
                    "the paused workspace {workspace} goes on from it: delete that, or run something in it, first"
                ),
            ),
            None => missing(&id),
        });
    }
    app.workspaces.collect_later();
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /v1/snapshots/{id}/manifest`
#[utoipa::path(get, path = "/v1/snapshots/{id}/manifest", tag = "snapshots",
    params(("id" = String, Path)), responses(
    (status = 200, description = "Every file with its hash", body = SnapshotManifest),
    (status = 404, description = "There is none", body = ErrorBody),
))]
pub(crate) async fn manifest(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<impl IntoResponse, ApiError> {
    let Reading { strata, kept, .. } = reading(&app, &caller, &id).await?;
    let body = produced::body(move |to| {
        let written = entries::write_manifest(&strata, to);
        drop(kept);
        written
    });
    Ok(([(CONTENT_TYPE, "application/json")], body))
}

/// `GET /v1/snapshots/{id}/tar`
#[utoipa::path(get, path = "/v1/snapshots/{id}/tar", tag = "snapshots",
    params(("id" = String, Path)), responses(
    (status = 200, description = "A POSIX archive with `workspace/` and `output/`. Contents are compared \
        with their hashes on the way; if one differs, the connection breaks.",
        body = Vec<u8>, content_type = "application/x-tar"),
    (status = 404, description = "There is none", body = ErrorBody),
))]
pub(crate) async fn tar(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<impl IntoResponse, ApiError> {
    let Reading { found, strata, kept } = reading(&app, &caller, &id).await?;
    let name = format!("attachment; filename=\"{}.tar\"", found.id);
    let body = produced::body(move |to| {
        let written = snapshot::write_archive(&strata, to);
        drop(kept);
        written
    });
    let headers = [(CONTENT_TYPE, "application/x-tar".to_owned()), (CONTENT_DISPOSITION, name)];
    Ok((headers, body))
}

/// `GET /v1/snapshots/{id}/diff`
#[utoipa::path(get, path = "/v1/snapshots/{id}/diff", tag = "snapshots",
    params(("id" = String, Path), DiffQuery), responses(
    (status = 200, description = "From `against` to this one", body = SnapshotDiff),
    (status = 400, description = "No `against`, or a parameter of the wrong type", body = ErrorBody),
    (status = 404, description = "One of the two is not there", body = ErrorBody),
))]
pub(crate) async fn diff(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    Query(query): Query<DiffQuery>,
) -> Result<axum::Json<SnapshotDiff>, ApiError> {
    let new = find(&app, &caller, &id).await?.snapshot;
    let old = find(&app, &caller, &query.against).await?.snapshot;
    let layers = app.workspaces.layers();
    let (new, kept_new) = layers.strata(&new.layer).await?;
    let (old, kept_old) = layers.strata(&old.layer).await?;
    let most = capped(query.limit, LISTED, MOST_LISTED) as usize;
    let found = blocking(move || snapshot::diff(&old, &new, most)).await?;
    drop((kept_new, kept_old));
    let (mut added, mut changed, mut removed) = (Vec::new(), Vec::new(), Vec::new());
    let totals = DiffTotals { added: found.added, changed: found.changed, removed: found.removed };
    let truncated = found.added + found.changed + found.removed > found.first.len() as u64;
    for difference in found.first {
        match difference {
            Difference::Added(entry) => added.extend(entries::shown(&entry)),
            Difference::Removed(entry) => removed.extend(entries::shown(&entry)),
            Difference::Changed(before, after) => {
                let both = entries::shown(&before).zip(entries::shown(&after));
                changed.extend(both.map(|(before, after)| ChangedEntry { before, after }));
            }
        }
    }
    let against = query.against;
    Ok(axum::Json(SnapshotDiff { against, added, changed, removed, totals, truncated }))
}

/// `POST /v1/snapshots/{id}/verify`
#[utoipa::path(post, path = "/v1/snapshots/{id}/verify", tag = "snapshots",
    params(("id" = String, Path)), responses(
    (status = 200, description = "Every content was read, and compared with its hash", body = Verified),
    (status = 404, description = "There is none", body = ErrorBody),
))]
pub(crate) async fn verify(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<axum::Json<Verified>, ApiError> {
    let Reading { strata, kept, .. } = reading(&app, &caller, &id).await?;
    let read = tokio::task::spawn_blocking(move || {
        let read = snapshot::write_archive(&strata, io::sink());
        drop(kept);
        read
    });
    let error = match read.await.map_err(internal)? {
        Ok(()) => None,
        Err(ArchiveError::Corrupt(path)) => Some(format!("{path} is not what it was")),
        Err(ArchiveError::Manifest(ManifestError::Changed)) => {
            Some("the manifest is not what it was".to_owned())
        }
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "a snapshot cannot be read");
            Some("something of it cannot be read".to_owned())
        }
    };
    Ok(axum::Json(Verified { intact: error.is_none(), error }))
}

/// A snapshot that is to be read from disk, and what must be kept for as long as that takes.
struct Reading {
    found: Snapshot,
    strata: Vec<Stratum>,
    kept: (Chain, Place),
}

async fn reading(app: &App, caller: &Caller, id: &str) -> Result<Reading, ApiError> {
    let found = find(app, caller, id).await?.snapshot;
    let place = app.downloads.take_one(&found.tenant).map_err(|_| {
        ApiError::said(
            Kind::TooMany,
            "too many snapshots are being read at once: let one end first",
        )
    })?;
    let (strata, chain) = app.workspaces.layers().strata(&found.layer).await?;
    Ok(Reading { found, strata, kept: (chain, place) })
}

/// One of many: if it cannot be read, the others are shown all the same.
async fn listed_as(app: &App, caller: &Caller, row: SnapshotRow) -> SnapshotView {
    let totals = match row.totals {
        Some(totals) => totals,
        None => match app.workspaces.layers().index(&row.snapshot.layer).await {
            Ok(totals) => totals.into(),
            Err(error) => {
                let id = row.snapshot.id.as_str();
                let error = &error as &dyn std::error::Error;
                tracing::error!(snapshot = id, error, "a snapshot cannot be read");
                let left_out = serde_json::json!({ "error": "its files cannot be read" });
                SnapshotTotals { bytes: 0, files: 0, left_out }
            }
        },
    };
    show(app, caller, row.snapshot, &row.tree, totals, None)
}

/// A snapshot that was just taken, as shown.
pub(crate) async fn view(
    app: &App,
    caller: &Caller,
    snapshot: Snapshot,
    freeze: Option<Duration>,
) -> Result<SnapshotView, ApiError> {
    let row = app.store.snapshot(store::Whose::Everyone, &snapshot.id).await.map_err(internal)?;
    let row = row.ok_or_else(|| missing(snapshot.id.as_str()))?;
    shown(app, caller, row, freeze).await
}

async fn shown(
    app: &App,
    caller: &Caller,
    row: SnapshotRow,
    freeze: Option<Duration>,
) -> Result<SnapshotView, ApiError> {
    let SnapshotRow { snapshot, tree, totals } = row;
    let totals = match totals {
        Some(totals) => totals,
        // Its manifest is being written.
        None => app.workspaces.layers().index(&snapshot.layer).await?.into(),
    };
    Ok(show(app, caller, snapshot, &tree, totals, freeze))
}

fn show(
    app: &App,
    caller: &Caller,
    snapshot: Snapshot,
    tree: &TreeId,
    totals: SnapshotTotals,
    freeze: Option<Duration>,
) -> SnapshotView {
    let path = app.workspaces.layers().trees().files(tree);
    SnapshotView {
        id: snapshot.id.into(),
        tenant_id: snapshot.tenant.into(),
        workspace_id: snapshot.workspace.map(Into::into),
        name: snapshot.name,
        created_at: snapshot.created_at.to_string(),
        path: if caller.is_admin() { path.display().to_string() } else { String::new() },
        size_bytes: totals.bytes,
        files: totals.files,
        left_out: totals.left_out,
        freeze_ms: freeze.map(|freeze| freeze.as_secs_f64() * 1000.0),
    }
}

async fn find(app: &App, caller: &Caller, id: &str) -> Result<SnapshotRow, ApiError> {
    let parsed: SnapshotId = id.parse().map_err(|_| missing(id))?;
    let row = app.store.snapshot(caller.sees(None)?, &parsed).await.map_err(internal)?;
    row.ok_or_else(|| missing(id))
}

fn missing(id: &str) -> ApiError {
    let id: String = id.chars().take(64).collect();
    ApiError::said(Kind::NotFound, format!("snapshot {id}"))
}

impl From<LayerError> for ApiError {
    fn from(error: LayerError) -> Self {
        Self::internal(error)
    }
}
