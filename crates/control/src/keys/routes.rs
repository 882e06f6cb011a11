//! `/v1/keys`, for admins.

use axum::extract::State;
use axum::http::StatusCode;
use httpkit::{ApiError, Json, Kind, Path, Query};
use serde::{Deserialize, Serialize};
use store::ApiKeyRow;
use utoipa::ToSchema;

use super::service::{KeyProblem, Keys};
use crate::app::App;
use crate::caller::{Caller, ForTenant, Role};
use crate::openapi::ErrorBody;

const LONGEST_LABEL: usize = 200;

/// A key to make.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct CreateKey {
    role: Role,
    /// Whose it is; by default the caller's.
    #[schema(value_type = Option<String>)]
    tenant: Option<ids::TenantId>,
    label: Option<String>,
    /// After which it ends by itself.
    #[schema(minimum = 1)]
    ttl_secs: Option<u64>,
}

/// A key that was just made.
#[derive(Serialize, ToSchema)]
pub(crate) struct CreatedKey {
    /// Shown this once.
    key: String,
    #[serde(flatten)]
    record: KeyRecord,
}

/// What may be told of a key.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct KeyRecord {
    id: String,
    tenant: String,
    role: String,
    label: String,
    created_at: String,
    expires_at: Option<String>,
    revoked_at: Option<String>,
    /// To the minute.
    last_used_at: Option<String>,
}

/// `POST /v1/keys`
#[utoipa::path(post, path = "/v1/keys", tag = "keys", request_body = CreateKey, responses(
    (status = 201, description = "Made; the key is shown this once", body = CreatedKey),
    (status = 400, description = "What is wrong, by field", body = ErrorBody),
    (status = 404, description = "Not an admin", body = ErrorBody),
))]
pub(crate) async fn create(
    State(app): State<App>,
    caller: Caller,
    Json(body): Json<CreateKey>,
) -> Result<(StatusCode, axum::Json<CreatedKey>), ApiError> {
    let keys = keys(&app, &caller)?;
    let label = body.label.unwrap_or_default();
    if label.chars().count() > LONGEST_LABEL || label.chars().any(char::is_control) {
        let text =
            format!("label: at most {LONGEST_LABEL} characters, none of them control characters");
        return Err(ApiError::said(Kind::Invalid, text));
    }
    let tenant = caller.acts_for(body.tenant.as_ref())?;
    let (key, row) = keys.create(tenant, body.role, label, body.ttl_secs).await?;
    let created = CreatedKey { key: key.expose().to_owned(), record: row.into() };
    Ok((StatusCode::CREATED, axum::Json(created)))
}

/// `GET /v1/keys`
#[utoipa::path(get, path = "/v1/keys", tag = "keys", params(ForTenant), responses(
    (status = 200, description = "Those made over the API, newest first", body = [KeyRecord]),
    (status = 404, description = "Not an admin", body = ErrorBody),
))]
pub(crate) async fn list(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<ForTenant>,
) -> Result<axum::Json<Vec<KeyRecord>>, ApiError> {
    let keys = keys(&app, &caller)?;
    let rows = keys.list(caller.sees(query.tenant.as_ref())?).await?;
    Ok(axum::Json(rows.into_iter().map(Into::into).collect()))
}

/// `DELETE /v1/keys/{id}`
#[utoipa::path(delete, path = "/v1/keys/{id}", tag = "keys", params(("id" = String, Path)), responses(
    (status = 204, description = "Ended, from the next request on"),
    (status = 404, description = "There is none, or not an admin", body = ErrorBody),
))]
pub(crate) async fn revoke(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    keys(&app, &caller)?.revoke(caller.sees(None)?, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A server that lets everyone in has no keys to manage.
fn keys<'a>(app: &'a App, caller: &Caller) -> Result<&'a Keys, ApiError> {
    let keys = app.keys.as_ref().filter(|_| caller.is_admin());
    keys.ok_or_else(|| ApiError::said(Kind::NotFound, "no such route"))
}

impl From<ApiKeyRow> for KeyRecord {
    fn from(row: ApiKeyRow) -> Self {
        let time = |time: Option<jiff::Timestamp>| time.map(|time| time.to_string());
        Self {
            id: row.key.id.into(),
            tenant: row.key.tenant.into(),
            role: row.key.role,
            label: row.key.label,
            created_at: row.key.created_at.to_string(),
            expires_at: time(row.key.expires_at),
            revoked_at: time(row.revoked_at),
            last_used_at: time(row.last_used_at),
        }
    }
}

impl From<KeyProblem> for ApiError {
    fn from(error: KeyProblem) -> Self {
        match error {
            KeyProblem::Ttl => Self::new(Kind::Invalid, error),
            KeyProblem::Missing(_) => Self::new(Kind::NotFound, error),
            KeyProblem::Store(_) => Self::internal(error),
        }
    }
}
