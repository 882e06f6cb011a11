//! The desktop, which this server does not have: what would be missing, and a plain no.

use axum::Json;
use serde::Serialize;
use utoipa::ToSchema;

use crate::problem::{Code, Problem};

/// What a desktop would need of the machine.
const NEEDED: [&str; 6] = ["Xvfb", "openbox", "xdotool", "import", "xrandr", "dbus-launch"];

/// How the desktop is.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DesktopStatus {
    /// `install_required` or `inactive`
    state: &'static str,
    missing_dependencies: Vec<&'static str>,
    #[schema(value_type = Vec<Object>)]
    processes: [(); 0],
}

/// `GET /v1/desktop/status`
#[utoipa::path(get, path = "/v1/desktop/status", tag = "desktop", responses(
    (status = 200, description = "What is missing", body = DesktopStatus),
))]
pub(crate) async fn status() -> Json<DesktopStatus> {
    let missing = crate::blocking::blocking(|| {
        let is_there = |program: &&str| {
            ["/usr/local/bin", "/usr/bin", "/bin"]
                .iter()
                .any(|directory| std::path::Path::new(directory).join(program).exists())
        };
        NEEDED.into_iter().filter(|program| !is_there(program)).collect::<Vec<_>>()
    });
    let missing_dependencies = missing.await;
    let state = if missing_dependencies.is_empty() { "inactive" } else { "install_required" };
    Json(DesktopStatus { state, missing_dependencies, processes: [] })
}

/// All other routes of the desktop.
pub(crate) async fn unsupported() -> Problem {
    Problem::new(Code::ModeNotSupported, "this server has no desktop")
}
