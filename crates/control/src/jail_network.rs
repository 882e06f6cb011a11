//! `/v1/jails/{id}/network`: what a jail that runs may reach.

use axum::Json;
use axum::extract::State;
use httpkit::{ApiError, Json as JsonBody, Kind, Path};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::app::App;
use crate::caller::Caller;
use crate::edge::internal;
use crate::exec::policy;
use crate::openapi::ErrorBody;

/// What a running jail may reach from now on.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct NetworkPatch {
    /// 0 to 32 entries, as in `network.domains` of a run; none closes everything.
    domains: Vec<String>,
}

/// What became of it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct NetworkPatched {
    domains: Vec<String>,
    /// Open connections that the new list does not allow, and that were cut.
    cut: usize,
}

/// `PUT /v1/jails/{id}/network`
#[utoipa::path(put, path = "/v1/jails/{id}/network", tag = "jails", operation_id = "put_network", params(("id" = i64, Path)),
    request_body = NetworkPatch, responses(
    (status = 200, description = "In force: for new connections, and for those open", body = NetworkPatched),
    (status = 400, description = "An entry is wrong, or cannot be served", body = ErrorBody),
    (status = 404, description = "There is none", body = ErrorBody),
    (status = 409, description = "It has ended, or was started without an allowlist", body = ErrorBody),
))]
pub(crate) async fn put(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    JsonBody(patch): JsonBody<NetworkPatch>,
) -> Result<Json<NetworkPatched>, ApiError> {
    let id: i64 = id.parse().map_err(|_| ApiError::said(Kind::Invalid, "invalid id"))?;
    let row = app.store.jail(caller.sees(None)?, id).await.map_err(internal)?;
    row.ok_or_else(|| ApiError::said(Kind::NotFound, format!("jail {id}")))?;
    let policy = policy(&patch.domains)?;
    let cut = app.executor.steer(id, policy).await?;
    Ok(Json(NetworkPatched { domains: patch.domains, cut }))
}
