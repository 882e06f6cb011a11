//! The state that handlers share, and the router.

use std::sync::Arc;

use axum::Router;
use axum::routing::{delete, get, post, put};
use secret::Vault;
use store::Store;

use crate::config::Persistence;
use crate::credentials::Credentials;
use crate::exec::Executor;
use crate::keys::ApiKeys;
use crate::metrics::Metrics;
use crate::sessions::Sessions;
use crate::{
    audit, credentials, edge, identity, jail_network, jails, openapi, public, runs, sessions,
};

/// Everything a handler may call. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct App(Arc<Parts>);

#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) vault: Arc<Vault>,
    pub(crate) keys: Option<ApiKeys>,
    pub(crate) store: Store,
    pub(crate) proxy: phantom::Proxy,
    pub(crate) executor: Executor,
    pub(crate) credentials: Credentials,
    pub(crate) sessions: Sessions,
    pub(crate) metrics: Metrics,
    pub(crate) settings: identity::Settings,
    pub(crate) persistence: Persistence,
    pub(crate) flavors: std::path::PathBuf,
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
        .route("/v1/credentials", get(credentials::list).post(credentials::put))
        .route("/v1/credentials/{service}", delete(credentials::remove))
        .route("/v1/sessions", get(sessions::list).post(sessions::create))
        .route("/v1/sessions/{id}", get(sessions::get).delete(sessions::close))
        .route("/v1/sessions/{id}/exec", post(sessions::exec))
        .route("/v1/sessions/{id}/runs", post(sessions::run))
        .route("/v1/runs", post(runs::create))
        .route("/v1/runs/stream", post(runs::stream))
        .route("/v1/jails", get(jails::list))
        .route("/v1/jails/{id}", get(jails::get))
        .route("/v1/jails/{id}/network", put(jail_network::put))
        .route("/v1/audit", get(audit::list));
    edge::wrap(routes, app)
}
