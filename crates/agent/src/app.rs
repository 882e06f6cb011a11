//! What every handler may use, and the routes.

use std::sync::Arc;

use axum::Router;
use axum::routing::{delete, get, post};
use futures_util::{Stream, StreamExt as _};
use tokio_util::sync::CancellationToken;

use crate::acp::Servers;
use crate::agents::Agents;
use crate::config::Config;
use crate::files::Root;
use crate::processes::Processes;
use crate::settings::Settings;
use crate::{acp, agents, desktop, edge, files, health, openapi, processes, sandbox, settings, ui};

/// Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct App {
    pub(crate) config: Arc<Config>,
    pub(crate) files: Root,
    pub(crate) processes: Processes,
    pub(crate) agents: Agents,
    pub(crate) servers: Servers,
    pub(crate) settings: Settings,
    /// The server stops: streams end.
    pub(crate) stop: CancellationToken,
}

impl App {
    /// A stream that ends with the server.
    pub(crate) fn until_stopped<S: Stream + Send>(
        &self,
        stream: S,
    ) -> impl Stream<Item = S::Item> + Send + use<S> {
        stream.take_until(self.stop.clone().cancelled_owned())
    }
}

/// All routes, with what wraps them.
pub(crate) fn router(app: App) -> Router {
    let fs = Router::new()
        .route("/entries", get(files::routes::entries))
        .route("/file", get(files::routes::read_file).put(files::routes::write_file))
        .route("/entry", delete(files::routes::delete))
        .route("/mkdir", post(files::routes::mkdir))
        .route("/move", post(files::routes::rename))
        .route("/stat", get(files::routes::stat))
        .route("/upload-batch", post(files::routes::upload_tar))
        .route("/batch", post(files::routes::write_batch))
        .route("/archive", get(files::routes::download_tar))
        .route("/watch", get(files::routes::watch))
        .route("/search", get(files::routes::search));
    let processes = Router::new()
        .route("/", get(processes::routes::list).post(processes::routes::create))
        .route("/config", get(processes::routes::get_config).post(processes::routes::set_config))
        .route("/run", post(processes::routes::run))
        .route("/{id}", get(processes::routes::get).delete(processes::routes::delete))
        .route("/{id}/stop", post(processes::routes::stop))
        .route("/{id}/kill", post(processes::routes::kill))
        .route("/{id}/input", post(processes::routes::input))
        .route("/{id}/logs", get(processes::routes::logs))
        .route("/{id}/terminal/resize", post(processes::routes::resize))
        .route("/{id}/terminal/ws", get(processes::routes::terminal_socket));
    let routes = Router::new()
        .route("/", get(health::root))
        .route("/openapi.json", get(openapi::serve))
        .route("/ui", get(ui::redirect))
        .route("/ui/", get(ui::index))
        .route("/ui/{*path}", get(ui::file))
        .route("/v1/health", get(health::health))
        .nest("/v1/fs", fs)
        .nest("/v1/processes", processes)
        .route("/v1/agents", get(agents::routes::list))
        .route("/v1/agents/{id}", get(agents::routes::one))
        .route("/v1/agents/{id}/install", post(agents::routes::install))
        .route("/v1/acp", get(acp::routes::list))
        .route(
            "/v1/acp/{server_id}",
            get(acp::routes::stream).post(acp::routes::post).delete(acp::routes::remove),
        )
        .nest("/v1/sessions", acp::session_routes())
        .route(
            "/v1/config/mcp",
            get(settings::routes::get_mcp)
                .put(settings::routes::put_mcp)
                .delete(settings::routes::delete_mcp),
        )
        .route(
            "/v1/config/skills",
            get(settings::routes::get_skills)
                .put(settings::routes::put_skills)
                .delete(settings::routes::delete_skills),
        )
        .route("/v1/mcp", delete(settings::routes::delete_all_mcp))
        .route("/v1/skills", delete(settings::routes::delete_all_skills))
        .route("/v1/sandbox", delete(sandbox::destroy))
        .route("/v1/sandbox/pause", post(sandbox::pause))
        .route("/v1/sandbox/resume", post(sandbox::resume))
        .route("/v1/sandbox/restart", post(sandbox::restart))
        .route("/v1/sandbox/kill", post(sandbox::kill))
        .route("/v1/desktop/status", get(desktop::status))
        .route("/v1/desktop/{*rest}", axum::routing::any(desktop::unsupported));
    edge::wrap(routes, app)
}
