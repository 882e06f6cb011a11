//! Host names of workspaces, checked.

use egress::HostName;
use httpkit::{ApiError, Kind};
use serde::{Deserialize, Serialize};
use store::{Domain, Target};
use utoipa::ToSchema;

const MOST: usize = 32;

/// A host name, and where the gateway sends its requests: exactly one of the two.
#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
pub(crate) struct WorkspaceDomain {
    domain: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    backend_url: Option<String>,
    /// A port inside the workspace's jail.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    vm_port: Option<u16>,
}

impl From<Domain> for WorkspaceDomain {
    fn from(domain: Domain) -> Self {
        let (backend_url, vm_port) = match domain.target {
            Target::BackendUrl(url) => (Some(url), None),
            Target::VmPort(port) => (None, Some(port)),
        };
        Self { domain: domain.domain, backend_url, vm_port }
    }
}

/// Checks them. Whether a backend may be dialled is for the gateway to find out, when it knows the address.
pub(super) fn checked(domains: Vec<WorkspaceDomain>) -> Result<Vec<Domain>, ApiError> {
    if domains.len() > MOST {
        return Err(invalid(format!("domains: at most {MOST}")));
    }
    let mut checked: Vec<Domain> = Vec::new();
    for (n, domain) in domains.into_iter().enumerate() {
        let domain = check(n, domain)?;
        if checked.iter().any(|other| other.domain == domain.domain) {
            return Err(invalid(format!("domains[{n}]: {} is named twice", domain.domain)));
        }
        checked.push(domain);
    }
    Ok(checked)
}

fn check(n: usize, domain: WorkspaceDomain) -> Result<Domain, ApiError> {
    let name = HostName::parse(&domain.domain).map_err(|_| {
        let shown: String = domain.domain.chars().take(64).collect();
        invalid(format!("domains[{n}].domain: {shown:?} is not a host name"))
    })?;
    let target = match (domain.backend_url, domain.vm_port) {
        (Some(_), Some(_)) => {
            return Err(invalid("workspace domain: set exactly one of backend_url / vm_port"));
        }
        (None, None) => {
            return Err(invalid("workspace domain: one of backend_url / vm_port is required"));
        }
        (None, Some(0)) => return Err(invalid("vm_port must be > 0")),
        (None, Some(port)) => Target::VmPort(port),
        (Some(url), None) => Target::BackendUrl(backend(&url)?),
    };
    Ok(Domain { domain: name.to_string(), target })
}

fn backend(url: &str) -> Result<String, ApiError> {
    let shown: String = url.chars().take(64).collect();
    if !url.starts_with("http://") && !url.starts_with("https://") {
        return Err(invalid(format!(
            "backend_url must start with http:// or https:// (got \"{shown}\")"
        )));
    }
    let parsed: axum::http::Uri =
        url.parse().map_err(|_| invalid(format!("backend_url: \"{shown}\" is not a URL")))?;
    if url.contains(['@', '#', '?']) {
        return Err(invalid("backend_url holds no user, query or fragment"));
    }
    let host = parsed.host().unwrap_or_default();
    if host.is_empty() {
        return Err(invalid(format!("backend_url: \"{shown}\" names no host")));
    }
    Ok(url.trim_end_matches('/').to_owned())
}

fn invalid(text: impl Into<String>) -> ApiError {
    ApiError::said(Kind::Invalid, text)
}
