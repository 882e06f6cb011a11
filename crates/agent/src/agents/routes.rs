//! `/v1/agents…`

use std::collections::BTreeMap;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use httpkit::{Json, Path, Query};
use serde_json::{Value, json};

use super::credentials::{self, Credentials};
use super::install::{Progress, Versions};
use super::registry::{self, Agent, CAPABILITIES};
use super::wire::{
    AgentInfo, AgentList, AgentStatus, AgentsQuery, InstallQuery, InstallRequest, InstallResult,
};
use crate::app::App;
use crate::blocking::blocking;
use crate::events::{self, Frame};
use crate::openapi::ProblemBody;
use crate::patience;
use crate::problem::Problem;
use crate::wire::now_ms;

/// How long an install may take before a sign of life is sent: longer than most fail, shorter than clients
/// wait.
const FIRST_SIGN: Duration = Duration::from_secs(20);

/// `GET /v1/agents`
#[utoipa::path(get, path = "/v1/agents", tag = "agents", params(AgentsQuery), responses(
    (status = 200, description = "All there are, in a fixed order", body = AgentList),
))]
pub(crate) async fn list(
    State(app): State<App>,
    Query(query): Query<AgentsQuery>,
) -> Result<axum::Json<AgentList>, Problem> {
    let credentials = found(&app).await;
    let mut agents = Vec::new();
    for agent in registry::all() {
        agents.push(info(&app, agent, &credentials, query.config).await?);
    }
    Ok(axum::Json(AgentList { agents }))
}

/// `GET /v1/agents/{id}`
#[utoipa::path(get, path = "/v1/agents/{id}", tag = "agents", params(("id" = String, Path), AgentsQuery),
    responses((status = 200, description = "The agent", body = AgentInfo)))]
pub(crate) async fn one(
    State(app): State<App>,
    Path(id): Path<String>,
    Query(query): Query<AgentsQuery>,
) -> Result<axum::Json<AgentInfo>, Problem> {
    let agent = registry::find(&id).ok_or_else(|| Problem::unsupported_agent(&id))?;
    let credentials = found(&app).await;
    Ok(axum::Json(info(&app, agent, &credentials, query.config).await?))
}

/// `POST /v1/agents/{id}/install`
#[utoipa::path(post, path = "/v1/agents/{id}/install", tag = "agents",
    params(("id" = String, Path), InstallQuery), request_body = InstallRequest, responses(
    (status = 200, description = "It is there. With `stream`, events: `progress`, then `done` or `error`",
        content((InstallResult = "application/json"), (String = "text/event-stream"))),
    (status = 500, description = "It could not be installed", body = ProblemBody),
))]
pub(crate) async fn install(
    State(app): State<App>,
    Path(id): Path<String>,
    Query(query): Query<InstallQuery>,
    Json(body): Json<InstallRequest>,
) -> Result<Response, Problem> {
    let versions = Versions { native: body.agent_version, adapter: body.agent_process_version };
    let progress = app.agents.install(&id, versions, body.reinstall).await?;
    if query.stream {
        return Ok(events::response(app.until_stopped(frames(progress))));
    }
    patience::answer_after(FIRST_SIGN, async move { Ok(InstallResult::from(progress.await?)) })
        .await
}

fn frames(progress: Progress) -> impl futures_util::Stream<Item = Vec<Frame>> + Send {
    futures_util::stream::unfold(Some(progress), |progress| async {
        let mut progress = progress?;
        if let Some(line) = progress.line().await {
            return Some((
                vec![Frame::of("progress", &json!({ "message": line }))],
                Some(progress),
            ));
        }
        let last = match progress.outcome().await {
            Ok(installed) => Frame::of("done", &InstallResult::from(installed)),
            Err(error) => Frame::of("error", &Problem::from(error).body()),
        };
        Some((vec![last], None))
    })
}

async fn found(app: &App) -> Credentials {
    let (home, config) = (app.config.home.clone(), app.config.clone());
    blocking(move || {
        let mut all = config.environment.server.clone();
        all.extend(config.environment.base.clone());
        credentials::find(&home, &all, true)
    })
    .await
}

async fn info(
    app: &App,
    agent: &'static Agent,
    credentials: &Credentials,
    config: bool,
) -> Result<AgentInfo, Problem> {
    let launch = app.agents.installed(agent).await;
    let capabilities: BTreeMap<&'static str, bool> = CAPABILITIES
        .iter()
        .map(|name| (*name, agent.capabilities.iter().any(|known| known == name)))
        .collect();
    let running = app.servers.running();
    let since = running.iter().filter(|(name, _)| *name == agent.id).map(|(_, since)| *since).min();
    let (mut version, mut path, mut options, mut error) = (None, None, None, None);
    if config {
        path = launch.as_ref().map(|launch| launch.command.clone());
        version = app.agents.version(agent).await;
        options = app.servers.config_options(&agent.id).await?;
        if options.is_none() {
            error = Some(format!("{} tells its options with its first session", agent.id));
        }
    }
    Ok(AgentInfo {
        id: &agent.id,
        installed: launch.is_some(),
        credentials_available: agent.credentials.is_empty()
            || agent.credentials.iter().any(|provider| credentials.contains_key(provider)),
        version,
        path,
        capabilities,
        server_status: since.map(|since| AgentStatus {
            status: "running",
            uptime_ms: now_ms().saturating_sub(since),
        }),
        config_options: options,
        config_error: error,
    })
}

impl super::Agents {
    /// The version of what we have installed of an agent.
    async fn version(&self, agent: &'static Agent) -> Option<String> {
        if agent.id == "mock" {
            return Some("builtin".to_owned());
        }
        let part = agent.native.as_ref().or(agent.adapter.as_ref())?;
        let modules = self.inner.bin.join("agent_processes").join(&agent.id).join("node_modules");
        let file = modules.join(&part.package).join("package.json");
        let text = blocking(move || std::fs::read(file)).await.ok()?;
        let package: Value = serde_json::from_slice(&text).ok()?;
        package["version"].as_str().map(str::to_owned)
    }
}
