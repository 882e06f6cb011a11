//! Who the caller is, and what the server is set to.

use std::net::SocketAddr;

use axum::Json;
use axum::extract::State;
use httpkit::ApiError;
use ids::TenantId;
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::caller::{Caller, Role};
use crate::edge::internal;
use crate::exec::{flavors as found_flavors, images as found_images};

/// What `GET /v1/config` tells of the listeners.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) proxy_base_url: String,
    pub(crate) proxy_addr: SocketAddr,
    pub(crate) api_addr: SocketAddr,
    pub(crate) gateway_addr: Option<SocketAddr>,
    pub(crate) state_dir: String,
    pub(crate) pool_dir: String,
}

/// Who the caller is.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Whoami {
    #[schema(value_type = String)]
    tenant: TenantId,
    role: Role,
}

/// The server's settings. Never a secret; addresses and paths for admins only.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ConfigView {
    proxy: ProxyView,
    control_plane: ControlPlaneView,
    gateway: Option<GatewayView>,
    exec: Option<ExecView>,
    persistence: PersistenceView,
    snapshots: SnapshotsView,
}

#[derive(Debug, Serialize, ToSchema)]
struct ProxyView {
    base_url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    bind_addr: Option<String>,
    providers: Vec<ProviderView>,
}

#[derive(Debug, Serialize, ToSchema)]
struct ProviderView {
    service_id: String,
    upstream_base: String,
    request_prefix: String,
}

#[derive(Debug, Serialize, ToSchema)]
struct ControlPlaneView {
    #[serde(skip_serializing_if = "Option::is_none")]
    bind_addr: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
struct GatewayView {
    bind_addr: String,
}

#[derive(Debug, Serialize, ToSchema)]
struct ExecView {
    default_memory_mb: u64,
    default_timeout_secs: u64,
    max_concurrent: usize,
}

#[derive(Debug, Serialize, ToSchema)]
struct PersistenceView {
    #[serde(skip_serializing_if = "Option::is_none")]
    state_dir: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    snapshot_pool_dir: Option<String>,
    idle_check_secs: u64,
}

#[derive(Debug, Serialize, ToSchema)]
struct SnapshotsView {
    gc: Option<RetentionView>,
}

#[derive(Debug, Serialize, ToSchema)]
struct RetentionView {
    max_age_secs: Option<u64>,
    max_count: Option<u64>,
    tick_secs: u64,
}

/// A runtime that can be put into a jail.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Flavor {
    name: String,
}

/// A root file system that a jail can have.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ImageView {
    name: String,
    /// Of its manifest.
    digest: String,
}

/// `GET /v1/whoami`
#[utoipa::path(get, path = "/v1/whoami", tag = "identity", responses(
    (status = 200, description = "Tenant and role of the key", body = Whoami),
))]
pub(crate) async fn whoami(caller: Caller) -> Json<Whoami> {
    Json(Whoami { tenant: caller.tenant, role: caller.role })
}

/// `GET /v1/config`
#[utoipa::path(get, path = "/v1/config", tag = "identity", responses(
    (status = 200, description = "The server's settings", body = ConfigView),
))]
pub(crate) async fn config(State(app): State<App>, caller: Caller) -> Json<ConfigView> {
    let settings = &app.settings;
    let for_admins = |text: String| caller.is_admin().then_some(text);
    let exec = app.executor.config();
    let retention = app.persistence.snapshots;
    let providers = app.proxy.providers().iter().map(|provider| ProviderView {
        service_id: provider.service.to_string(),
        upstream_base: provider.base().to_string().trim_end_matches('/').to_owned(),
        request_prefix: format!("/v1/{}/", provider.service),
    });
    Json(ConfigView {
        proxy: ProxyView {
            base_url: settings.proxy_base_url.clone(),
            bind_addr: for_admins(settings.proxy_addr.to_string()),
            providers: providers.collect(),
        },
        control_plane: ControlPlaneView { bind_addr: for_admins(settings.api_addr.to_string()) },
        gateway: settings
            .gateway_addr
            .filter(|_| caller.is_admin())
            .map(|address| GatewayView { bind_addr: address.to_string() }),
        exec: Some(ExecView {
            default_memory_mb: exec.default_memory_mb,
            default_timeout_secs: exec.default_timeout_secs,
            max_concurrent: exec.max_concurrent,
        }),
        persistence: PersistenceView {
            state_dir: for_admins(settings.state_dir.clone()),
            snapshot_pool_dir: for_admins(settings.pool_dir.clone()),
            idle_check_secs: app.persistence.idle_check_secs,
        },
        snapshots: SnapshotsView {
            gc: Some(RetentionView {
                max_age_secs: retention.max_age_secs,
                max_count: retention.max_count,
                tick_secs: retention.tick_secs,
            }),
        },
    })
}

/// `GET /v1/flavors`
#[utoipa::path(get, path = "/v1/flavors", tag = "identity", responses(
    (status = 200, description = "Runtimes that can be put into a jail, by name", body = [Flavor]),
))]
pub(crate) async fn flavors(
    State(app): State<App>,
    _caller: Caller,
) -> Result<Json<Vec<Flavor>>, ApiError> {
    let found = found_flavors::list(&app.flavors).map_err(internal)?;
    Ok(Json(found.into_iter().map(|(name, _)| Flavor { name }).collect()))
}

/// `GET /v1/images`
#[utoipa::path(get, path = "/v1/images", tag = "identity", responses(
    (status = 200, description = "Root file systems that a jail can have, by name", body = [ImageView]),
))]
pub(crate) async fn images(
    State(app): State<App>,
    _caller: Caller,
) -> Result<Json<Vec<ImageView>>, ApiError> {
    let found = found_images::list(&app.images).map_err(internal)?;
    let view =
        |image: found_images::Image| ImageView { name: image.name, digest: image.about.digest };
    Ok(Json(found.into_iter().map(view).collect()))
}
