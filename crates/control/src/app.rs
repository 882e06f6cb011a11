//! The state that handlers share, and the router.

use std::sync::Arc;

use axum::Router;
use axum::routing::{any, delete, get, post, put};
use store::Store;

use crate::agents::Agents;
use crate::config::Persistence;
use crate::credentials::Credentials;
use crate::exec::{Executor, Places};
use crate::gateway::Forwarder;
use crate::keys::Keys;
use crate::metrics::Metrics;
use crate::rates::Rates;
use crate::sessions::Sessions;
use crate::workspaces::Workspaces;
use crate::{
    agents, audit, backup, credentials, edge, gateway, identity, jail_network, jails, keys,
    openapi, public, runs, sessions, snapshots, workspaces,
};

/// Everything a handler may call. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct App(Arc<Parts>);

#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) keys: Option<Keys>,
    pub(crate) store: Store,
    pub(crate) proxy: phantom::Proxy,
    pub(crate) executor: Executor,
    pub(crate) credentials: Credentials,
    pub(crate) sessions: Sessions,
    pub(crate) workspaces: Workspaces,
    pub(crate) agents: Agents,
    pub(crate) forwarder: Forwarder,
    pub(crate) rates: Rates,
    /// Of what is read from disk for a client, and holds a thread.
    pub(crate) downloads: Places,
    pub(crate) metrics: Metrics,
    pub(crate) settings: identity::Settings,
    pub(crate) persistence: Persistence,
    pub(crate) flavors: std::path::PathBuf,
    pub(crate) images: std::path::PathBuf,
    pub(crate) cors_origins: Vec<String>,
}

impl App {
    pub(crate) fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }
}

impl std::ops::Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

/// Every route. The layers are in `edge`, and wrap all of them once.
pub(crate) fn router(app: App) -> Router {
    let routes = Router::new()
        .route("/healthz", get(public::healthz))
        .route("/v1/stats", get(public::stats))
        .route("/metrics", get(public::metrics))
        .route("/openapi.json", get(openapi::serve))
        .route("/v1/whoami", get(identity::whoami))
        .route("/v1/config", get(identity::config))
        .route("/v1/flavors", get(identity::flavors))
        .route("/v1/images", get(identity::images))
        .route("/v1/credentials", get(credentials::list).post(credentials::put))
        .route("/v1/credentials/{service}", delete(credentials::remove))
        .route("/v1/sessions", get(sessions::list).post(sessions::create))
        .route("/v1/sessions/{id}", get(sessions::get).delete(sessions::close))
        .route("/v1/sessions/{id}/exec", post(sessions::exec))
        .route("/v1/sessions/{id}/runs", post(sessions::run))
        .route("/v1/runs", post(runs::create))
        .route("/v1/runs/stream", post(runs::stream))
        .route("/v1/runs/fork", post(runs::fork))
        .route("/v1/workspaces", get(workspaces::list).post(workspaces::create))
        .route("/v1/workspaces/from-snapshot", post(workspaces::from_snapshot))
        .route(
            "/v1/workspaces/{id}",
            get(workspaces::get).patch(workspaces::patch).delete(workspaces::delete),
        )
        .route("/v1/workspaces/{id}/exec", post(workspaces::exec))
        .route("/v1/workspaces/{id}/exec/stream", post(workspaces::exec_stream))
        .route("/v1/workspaces/{id}/exec/attach", post(workspaces::attach))
        .route("/v1/workspaces/{id}/fork", post(workspaces::fork))
        .route("/v1/workspaces/{id}/restore", post(workspaces::restore))
        .route("/v1/workspaces/{id}/snapshot", post(workspaces::snapshot))
        .route("/v1/workspaces/{id}/ports/{port}", any(gateway::preview_top))
        .route("/v1/workspaces/{id}/ports/{port}/", any(gateway::preview_top))
        .route("/v1/workspaces/{id}/ports/{port}/{*path}", any(gateway::preview))
        .route(
            "/v1/workspaces/{id}/agent",
            get(agents::get).post(agents::start).patch(agents::patch).delete(agents::end),
        )
        .route(agents::TOP, any(agents::forward_top))
        .route(agents::BELOW, any(agents::forward))
        .route("/v1/snapshots", get(snapshots::list))
        .route("/v1/snapshots/{id}", get(snapshots::get).delete(snapshots::delete))
        .route("/v1/snapshots/{id}/manifest", get(snapshots::manifest))
        .route("/v1/snapshots/{id}/diff", get(snapshots::diff))
        .route("/v1/snapshots/{id}/tar", get(snapshots::tar))
        .route("/v1/snapshots/{id}/verify", post(snapshots::verify))
        .route("/v1/keys", get(keys::list).post(keys::create))
        .route("/v1/keys/{id}", delete(keys::revoke))
        .route("/v1/jails", get(jails::list))
        .route("/v1/jails/{id}", get(jails::get))
        .route("/v1/jails/{id}/network", put(jail_network::put))
        .route("/v1/audit", get(audit::list))
        .route("/v1/backup", post(backup::create));
    edge::wrap(routes, app)
}
