//! `/v1/credentials`

use axum::extract::State;
use axum::http::StatusCode;
use httpkit::{ApiError, Json, Kind, Path, Query};
use secret::Secret;

use super::service::CredentialError;
use super::wire::{CredentialRecord, PutCredential};
use crate::app::App;
use crate::caller::{Caller, ForTenant};
use crate::openapi::ErrorBody;

/// `POST /v1/credentials`
#[utoipa::path(post, path = "/v1/credentials", tag = "credentials", params(ForTenant),
    request_body = PutCredential, responses(
    (status = 200, description = "Kept, or rotated", body = CredentialRecord),
    (status = 400, description = "Blank secret or unknown service", body = ErrorBody),
    (status = 404, description = "Another tenant", body = ErrorBody),
))]
pub(crate) async fn put(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<ForTenant>,
    Json(body): Json<PutCredential>,
) -> Result<axum::Json<CredentialRecord>, ApiError> {
    let secret = Secret::new(body.secret);
    let tenant = caller.acts_for(query.tenant.as_ref())?;
    let service = app.credentials.service(&body.service)?;
    let kept = app.credentials.put(tenant, service, &secret).await?;
    Ok(axum::Json(kept.into()))
}

/// `GET /v1/credentials`
#[utoipa::path(get, path = "/v1/credentials", tag = "credentials", params(ForTenant), responses(
    (status = 200, description = "By tenant and service", body = [CredentialRecord]),
))]
pub(crate) async fn list(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<ForTenant>,
) -> Result<axum::Json<Vec<CredentialRecord>>, ApiError> {
    let whose = caller.sees(query.tenant.as_ref())?;
    let credentials = app.credentials.list(whose).await?;
    Ok(axum::Json(credentials.into_iter().map(Into::into).collect()))
}

/// `DELETE /v1/credentials/{service}`
#[utoipa::path(delete, path = "/v1/credentials/{service}", tag = "credentials",
    params(ForTenant, ("service" = String, Path)), responses(
    (status = 204, description = "Removed; its phantom tokens no longer work"),
    (status = 400, description = "Unknown service", body = ErrorBody),
    (status = 404, description = "There is none", body = ErrorBody),
))]
pub(crate) async fn remove(
    State(app): State<App>,
    caller: Caller,
    Path(service): Path<String>,
    Query(query): Query<ForTenant>,
) -> Result<StatusCode, ApiError> {
    let tenant = caller.acts_for(query.tenant.as_ref())?;
    let service = app.credentials.service(&service)?;
    app.credentials.remove(&tenant, service).await?;
    Ok(StatusCode::NO_CONTENT)
}

impl From<CredentialError> for ApiError {
    fn from(error: CredentialError) -> Self {
        match error {
            CredentialError::Blank
            | CredentialError::Unprintable
            | CredentialError::UnknownService { .. } => Self::new(Kind::Invalid, error),
            CredentialError::Missing(_) => Self::new(Kind::NotFound, error),
            CredentialError::Store(_) => Self::internal(error),
        }
    }
}
