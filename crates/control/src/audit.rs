//! `/v1/audit`: every decision of the phantom proxy.

use axum::Json;
use axum::extract::State;
use httpkit::{ApiError, Query};
use ids::TenantId;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use store::AuditFilter;
use utoipa::{IntoParams, ToSchema};

use crate::app::App;
use crate::caller::Caller;
use crate::edge::internal;
use crate::jails::capped;
use crate::openapi::ErrorBody;

const DEFAULT_LIMIT: u32 = 100;
const MOST_ROWS: u32 = 1000;

/// Which rows are wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct AuditQuery {
    /// Default 100, at most 1000.
    limit: Option<u64>,
    session_id: Option<String>,
    service: Option<String>,
    /// RFC 3339: only rows from then on.
    #[param(value_type = Option<String>)]
    since: Option<Timestamp>,
    /// Only rows older than this id: the last one of the page before.
    cursor: Option<i64>,
    /// For admins: whose rows.
    #[param(value_type = Option<String>)]
    tenant: Option<TenantId>,
}

/// The newest decisions.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AuditList {
    rows: Vec<AuditRecord>,
    /// That match, on any page.
    total: u64,
}

/// One decision.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AuditRecord {
    id: i64,
    at: String,
    /// Null for a request that named no known token.
    tenant_id: Option<String>,
    session_id: String,
    service: String,
    method: String,
    /// The upstream's, without the query.
    path: String,
    status: u16,
    reject_reason: Option<String>,
    /// To the head of the response.
    upstream_ms: Option<u64>,
    /// Known once the exchange has ended.
    request_bytes: Option<u64>,
    response_bytes: Option<u64>,
}

/// `GET /v1/audit`
#[utoipa::path(get, path = "/v1/audit", tag = "audit", params(AuditQuery), responses(
    (status = 200, description = "Newest first", body = AuditList),
    (status = 400, description = "A parameter of the wrong type", body = ErrorBody),
))]
pub(crate) async fn list(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<AuditQuery>,
) -> Result<Json<AuditList>, ApiError> {
    // What a client has seen answered is found.
    app.proxy.journal().flush().await;
    let filter = AuditFilter {
        session: query.session_id,
        service: query.service,
        since: query.since,
        before: query.cursor,
    };
    let limit = capped(query.limit, DEFAULT_LIMIT, MOST_ROWS);
    let whose = caller.sees(query.tenant.as_ref())?;
    let listed = app.store.audit(whose, &filter, limit).await.map_err(internal)?;
    let rows = listed.rows.into_iter().map(|row| AuditRecord {
        id: row.id,
        at: row.at.to_string(),
        tenant_id: row.tenant,
        session_id: row.session,
        service: row.service,
        method: row.method,
        path: row.path,
        status: row.status,
        reject_reason: row.reject_reason,
        upstream_ms: row.upstream_ms,
        request_bytes: row.transfer.map(|transfer| transfer.request_bytes),
        response_bytes: row.transfer.map(|transfer| transfer.response_bytes),
    });
    Ok(Json(AuditList { rows: rows.collect(), total: listed.total }))
}
