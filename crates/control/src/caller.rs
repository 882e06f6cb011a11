//! Who asks, and whose rows they may see.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use httpkit::{ApiError, Kind};
use ids::TenantId;
use serde::{Deserialize, Serialize};
use store::Whose;
use utoipa::ToSchema;

/// Who asks. A handler that forgets this extractor has no tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller {
    pub tenant: TenantId,
    pub role: Role,
}

/// What a key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    /// Sees every tenant's rows.
    Admin,
    /// Sees its own tenant's.
    Operator,
}

impl Caller {
    /// Whose rows the caller sees: an admin everyone's, or those of the tenant they name.
    pub(crate) fn sees<'a>(&'a self, named: Option<&'a TenantId>) -> Result<Whose<'a>, ApiError> {
        match (self.role, named) {
            (Role::Admin, None) => Ok(Whose::Everyone),
            (Role::Admin, Some(tenant)) => Ok(Whose::Of(tenant)),
            (Role::Operator, None) => Ok(Whose::Of(&self.tenant)),
            (Role::Operator, Some(tenant)) if *tenant == self.tenant => Ok(Whose::Of(&self.tenant)),
            (Role::Operator, Some(_)) => Err(ApiError::said(Kind::NotFound, "tenant")),
        }
    }

    /// For whom the caller acts: themselves, or for an admin the tenant they name.
    pub(crate) fn acts_for(&self, named: Option<&TenantId>) -> Result<TenantId, ApiError> {
        match (self.role, named) {
            (_, None) => Ok(self.tenant.clone()),
            (Role::Admin, Some(tenant)) => Ok(tenant.clone()),
            (Role::Operator, Some(tenant)) if *tenant == self.tenant => Ok(self.tenant.clone()),
            (Role::Operator, Some(_)) => Err(ApiError::said(Kind::NotFound, "tenant")),
        }
    }

    pub(crate) fn is_admin(&self) -> bool {
        self.role == Role::Admin
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    /// The layer that authenticates has put it there; a route outside that layer is a bug of ours.
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let caller = parts.extensions.get().cloned();
        caller.ok_or_else(|| ApiError::said(Kind::Unauthorized, "missing api key"))
    }
}

/// The token of an `authorization` header: a bare one, or behind the scheme, which is written in any case.
pub(crate) fn bearer(header: &str) -> &str {
    match header.split_at_checked("Bearer ".len()) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("Bearer ") => token.trim(),
        _ => header.trim(),
    }
}

/// `?tenant=`, which every route understands that makes or lists rows.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ForTenant {
    /// For admins: the tenant to act for, or whose rows to list.
    #[param(value_type = Option<String>)]
    pub(crate) tenant: Option<TenantId>,
}
