//! `/v1/jails`: the ledger.

use axum::Json;
use axum::extract::State;
use httpkit::{ApiError, Kind, Path, Query};
use ids::TenantId;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use store::{JailFilter, JailRow, JailStatus, Page};
use utoipa::{IntoParams, ToSchema};

use crate::app::App;
use crate::caller::Caller;
use crate::edge::internal;
use crate::exec::{Live, ResourceStats};
use crate::openapi::ErrorBody;

pub(crate) const DEFAULT_LIMIT: u32 = 50;
pub(crate) const MOST_ROWS: u32 = 500;

/// Which rows are wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct JailQuery {
    /// Default 50, at most 500.
    limit: Option<u64>,
    offset: Option<u64>,
    /// `running`, `completed` or `error`; anything else does not filter.
    status: Option<String>,
    /// `run`, `exec`, `fork`, `stream` or `workspace`; anything else does not filter.
    kind: Option<String>,
    /// Found anywhere in label, session or error, in any case.
    q: Option<String>,
    /// For admins: whose rows.
    #[param(value_type = Option<String>)]
    tenant: Option<TenantId>,
}

/// A page of the ledger, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct JailsList {
    rows: Vec<JailRecord>,
    /// On all pages.
    total: u64,
    limit: u32,
    offset: u64,
}

/// One command in one jail.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct JailRecord {
    id: i64,
    tenant_id: String,
    kind: &'static str,
    started_at: String,
    ended_at: Option<String>,
    status: &'static str,
    session_id: Option<String>,
    label: String,
    parent_id: Option<i64>,
    exit_code: Option<i32>,
    duration_ms: Option<u64>,
    timed_out: Option<bool>,
    oom_killed: Option<bool>,
    memory_peak_bytes: Option<u64>,
    memory_current_bytes: Option<u64>,
    cpu_usage_usec: Option<u64>,
    cpu_user_usec: Option<u64>,
    cpu_system_usec: Option<u64>,
    io_read_bytes: Option<u64>,
    io_write_bytes: Option<u64>,
    pids_current: Option<u64>,
    /// The last 16 KiB.
    stdout: Option<String>,
    /// The last 16 KiB.
    stderr: Option<String>,
    error: Option<String>,
    config: Value,
    /// Protections and limits that were in force.
    enforced: Vec<String>,
    /// Of a jail with an allowlist that has ended: see `NetworkUse`.
    network: Option<Value>,
}

/// `GET /v1/jails`
#[utoipa::path(get, path = "/v1/jails", tag = "jails", params(JailQuery), responses(
    (status = 200, description = "Newest first", body = JailsList),
    (status = 400, description = "A parameter of the wrong type", body = ErrorBody),
))]
pub(crate) async fn list(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<JailQuery>,
) -> Result<Json<JailsList>, ApiError> {
    let page = Page {
        limit: capped(query.limit, DEFAULT_LIMIT, MOST_ROWS),
        offset: query.offset.unwrap_or_default(),
    };
    let filter = JailFilter {
        status: query.status.as_deref().and_then(|word| word.parse().ok()),
        kind: query.kind.as_deref().and_then(|word| word.parse().ok()),
        text: query.q.map(|q| q.trim().to_owned()).filter(|q| !q.is_empty()),
    };
    let whose = caller.sees(query.tenant.as_ref())?;
    let listed = app.store.jails(whose, &filter, page).await.map_err(internal)?;
    let rows = listed.rows.into_iter().map(|row| with_live(&app, row)).collect();
    Ok(Json(JailsList { rows, total: listed.total, limit: page.limit, offset: page.offset }))
}

/// `GET /v1/jails/{id}`
#[utoipa::path(get, path = "/v1/jails/{id}", tag = "jails", params(("id" = i64, Path)), responses(
    (status = 200, description = "The row, with live figures while it runs", body = JailRecord),
    (status = 400, description = "Not a number", body = ErrorBody),
    (status = 404, description = "There is none", body = ErrorBody),
))]
pub(crate) async fn get(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<JailRecord>, ApiError> {
    let id: i64 = id.parse().map_err(|_| ApiError::said(Kind::Invalid, "invalid id"))?;
    let row = app.store.jail(caller.sees(None)?, id).await.map_err(internal)?;
    let row = row.ok_or_else(|| ApiError::said(Kind::NotFound, format!("jail {id}")))?;
    Ok(Json(with_live(&app, row)))
}

/// A limit as sent, however large.
pub(crate) fn capped(limit: Option<u64>, default: u32, most: u32) -> u32 {
    limit.map_or(default, |limit| u32::try_from(limit).map_or(most, |limit| limit.min(most)))
}

fn with_live(app: &App, row: JailRow) -> JailRecord {
    let live = (row.status == JailStatus::Running).then(|| app.executor.live().get(row.id));
    record(row, live.flatten())
}

fn record(row: JailRow, live: Option<Live>) -> JailRecord {
    let stored = row.end.statistics.map(|stats| ResourceStats {
        memory_peak_bytes: stats.memory_peak_bytes,
        memory_current_bytes: stats.memory_current_bytes,
        cpu_usage_usec: stats.cpu_usage_usec,
        cpu_user_usec: stats.cpu_user_usec,
        cpu_system_usec: stats.cpu_system_usec,
        io_read_bytes: stats.io_read_bytes,
        io_write_bytes: stats.io_write_bytes,
        pids_current: stats.pids_current,
    });
    let stats = live.as_ref().map_or(stored, |live| live.stats);
    let count = |of: fn(&ResourceStats) -> u64| stats.as_ref().map(of);
    JailRecord {
        id: row.id,
        tenant_id: row.new.tenant.into(),
        kind: row.new.kind.as_str(),
        started_at: row.new.started_at.to_string(),
        ended_at: row.ended_at.map(|end| end.to_string()),
        status: row.status.as_str(),
        session_id: row.new.session.map(Into::into),
        label: row.new.label,
        parent_id: row.new.parent,
        exit_code: row.end.exit_code,
        duration_ms: row.end.duration_ms,
        timed_out: row.end.timed_out,
        oom_killed: row.end.oom_killed,
        memory_peak_bytes: count(|s| s.memory_peak_bytes),
        memory_current_bytes: count(|s| s.memory_current_bytes),
        cpu_usage_usec: count(|s| s.cpu_usage_usec),
        cpu_user_usec: count(|s| s.cpu_user_usec),
        cpu_system_usec: count(|s| s.cpu_system_usec),
        io_read_bytes: count(|s| s.io_read_bytes),
        io_write_bytes: count(|s| s.io_write_bytes),
        pids_current: count(|s| s.pids_current),
        stdout: live.as_ref().map(|live| live.stdout.text()).or(row.end.stdout),
        stderr: live.as_ref().map(|live| live.stderr.text()).or(row.end.stderr),
        error: row.end.error,
        config: row.new.config,
        enforced: row.end.enforced,
        network: row.end.network,
    }
}
