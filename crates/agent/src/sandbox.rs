//! `/v1/sandbox…`: the life of what runs in this sandbox. This server stands for it when it is alone.

use axum::Json;
use axum::extract::State;
use rustix::process::Signal;
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::blocking::blocking;
use crate::problem::Problem;
use crate::processes::signal_all;

/// What the sandbox does from now on.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SandboxStatus {
    /// `paused`, `running` or `stopped`
    status: &'static str,
}

/// `POST /v1/sandbox/pause`
#[utoipa::path(post, path = "/v1/sandbox/pause", tag = "sandbox", responses(
    (status = 200, description = "All that this server started stands still", body = SandboxStatus),
))]
pub(crate) async fn pause(State(app): State<App>) -> Json<SandboxStatus> {
    signal(&app, Signal::STOP).await;
    Json(SandboxStatus { status: "paused" })
}

/// `POST /v1/sandbox/resume`
#[utoipa::path(post, path = "/v1/sandbox/resume", tag = "sandbox", responses(
    (status = 200, description = "It goes on", body = SandboxStatus),
))]
pub(crate) async fn resume(State(app): State<App>) -> Json<SandboxStatus> {
    signal(&app, Signal::CONT).await;
    Json(SandboxStatus { status: "running" })
}

/// `POST /v1/sandbox/restart`
#[utoipa::path(post, path = "/v1/sandbox/restart", tag = "sandbox", responses(
    (status = 200, description = "All processes and agents have ended; sessions can be gone on with", body = SandboxStatus),
))]
pub(crate) async fn restart(State(app): State<App>) -> Result<Json<SandboxStatus>, Problem> {
    // What stands still does not end by itself.
    signal(&app, Signal::CONT).await;
    tokio::join!(app.servers.stop_agents(), app.processes.end_all());
    // And what they had left behind.
    signal(&app, Signal::KILL).await;
    Ok(Json(SandboxStatus { status: "running" }))
}

/// `POST /v1/sandbox/kill`
#[utoipa::path(post, path = "/v1/sandbox/kill", tag = "sandbox", responses(
    (status = 200, description = "This server ends, and all that it started", body = SandboxStatus),
))]
pub(crate) async fn kill(State(app): State<App>) -> Json<SandboxStatus> {
    end(app).await
}

/// `DELETE /v1/sandbox`
#[utoipa::path(delete, path = "/v1/sandbox", tag = "sandbox", responses(
    (status = 200, description = "This server ends, and all that it started", body = SandboxStatus),
))]
pub(crate) async fn destroy(State(app): State<App>) -> Json<SandboxStatus> {
    end(app).await
}

async fn end(app: App) -> Json<SandboxStatus> {
    signal(&app, Signal::CONT).await;
    // This answer is a request in flight: it is sent before the server has ended.
    app.stop.cancel();
    Json(SandboxStatus { status: "stopped" })
}

async fn signal(app: &App, signal: Signal) {
    let keeper = app.config.keeper;
    blocking(move || signal_all(signal, keeper)).await;
}
