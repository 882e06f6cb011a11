//! `/v1/config/…`

use axum::extract::State;
use axum::http::StatusCode;
use httpkit::{Json, Query};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::IntoParams;

use super::{DEFAULT, Settings, What};
use crate::app::App;
use crate::problem::Problem;

/// Which server for tools.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(crate) struct McpQuery {
    /// For sessions in this directory. Default: the server's home, and so all.
    directory: Option<String>,
    /// Default: `default`
    #[serde(alias = "mcp_name")]
    mcp_name: Option<String>,
}

/// Which skills.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(crate) struct SkillsQuery {
    /// For sessions in this directory. Default: the server's home, and so all.
    directory: Option<String>,
    /// Default: `default`
    #[serde(alias = "skill_name")]
    skill_name: Option<String>,
}

/// What is asked for, of either kind.
struct Asked<'a> {
    what: What,
    settings: &'a Settings,
    directory: Option<String>,
    name: Option<String>,
}

impl Asked<'_> {
    /// Neither directory nor name: the one object for everything.
    fn is_whole(&self) -> bool {
        self.directory.is_none() && self.name.is_none()
    }

    fn check(&self) -> Result<(), Problem> {
        if self.is_whole() {
            return Ok(());
        }
        let name = match self.what {
            What::Mcp => "mcpName",
            What::Skills => "skillName",
        };
        for (name, given) in [("directory", &self.directory), (name, &self.name)] {
            if given.as_deref().unwrap_or_default().trim().is_empty() {
                return Err(Problem::invalid(format!("missing required '{name}' query parameter")));
            }
        }
        Ok(())
    }

    fn name(&self) -> String {
        self.name.clone().unwrap_or_else(|| DEFAULT.to_owned())
    }

    async fn get(self) -> Result<Value, Problem> {
        self.check()?;
        let directory = self.settings.directory(self.directory.as_deref());
        let found = self.settings.all(self.what, &directory).await?.remove(&self.name());
        match found {
            Some(found) => Ok(found),
            None if self.is_whole() => Ok(json!({})),
            None => {
                Err(Problem::session_not_found(&format!("{}:{}", self.what.word(), self.name())))
            }
        }
    }

    async fn put(self, body: Value) -> Result<StatusCode, Problem> {
        self.check()?;
        if !body.is_object() {
            return Err(Problem::invalid("the body must be a JSON object"));
        }
        let value = if self.is_whole() { body } else { self.what.checked(body)? };
        let directory = self.settings.directory(self.directory.as_deref());
        let name = self.name();
        self.settings.change(self.what, &directory, |all| drop(all.insert(name, value))).await?;
        Ok(StatusCode::NO_CONTENT)
    }

    async fn delete(self) -> Result<StatusCode, Problem> {
        self.check()?;
        let directory = self.settings.directory(self.directory.as_deref());
        let name = self.name();
        self.settings.change(self.what, &directory, |all| drop(all.remove(&name))).await?;
        Ok(StatusCode::NO_CONTENT)
    }
}

fn mcp(app: &App, query: McpQuery) -> Asked<'_> {
    let McpQuery { directory, mcp_name } = query;
    Asked { what: What::Mcp, settings: &app.settings, directory, name: mcp_name }
}

fn skills(app: &App, query: SkillsQuery) -> Asked<'_> {
    let SkillsQuery { directory, skill_name } = query;
    Asked { what: What::Skills, settings: &app.settings, directory, name: skill_name }
}

/// `GET /v1/config/mcp`
#[utoipa::path(get, path = "/v1/config/mcp", tag = "config", params(McpQuery), responses(
    (status = 200, description = "The server for tools; without a query, the object for everything", body = Object),
    (status = 404, description = "There is none", body = crate::openapi::ProblemBody),
))]
pub(crate) async fn get_mcp(
    State(app): State<App>,
    Query(query): Query<McpQuery>,
) -> Result<axum::Json<Value>, Problem> {
    mcp(&app, query).get().await.map(axum::Json)
}

/// `PUT /v1/config/mcp`
#[utoipa::path(put, path = "/v1/config/mcp", tag = "config", params(McpQuery), request_body = Object, responses(
    (status = 204, description = "In force for sessions begun or loaded from now on"),
))]
pub(crate) async fn put_mcp(
    State(app): State<App>,
    Query(query): Query<McpQuery>,
    Json(body): Json<Value>,
) -> Result<StatusCode, Problem> {
    mcp(&app, query).put(body).await
}

/// `DELETE /v1/config/mcp`
#[utoipa::path(delete, path = "/v1/config/mcp", tag = "config", params(McpQuery),
    responses((status = 204, description = "There is none any more")))]
pub(crate) async fn delete_mcp(
    State(app): State<App>,
    Query(query): Query<McpQuery>,
) -> Result<StatusCode, Problem> {
    mcp(&app, query).delete().await
}

/// `GET /v1/config/skills`
#[utoipa::path(get, path = "/v1/config/skills", tag = "config", params(SkillsQuery), responses(
    (status = 200, description = "The skills; without a query, the object for everything", body = Object),
    (status = 404, description = "There are none", body = crate::openapi::ProblemBody),
))]
pub(crate) async fn get_skills(
    State(app): State<App>,
    Query(query): Query<SkillsQuery>,
) -> Result<axum::Json<Value>, Problem> {
    skills(&app, query).get().await.map(axum::Json)
}

/// `PUT /v1/config/skills`
#[utoipa::path(put, path = "/v1/config/skills", tag = "config", params(SkillsQuery), request_body = Object, responses(
    (status = 204, description = "In force for sessions begun or loaded from now on"),
))]
pub(crate) async fn put_skills(
    State(app): State<App>,
    Query(query): Query<SkillsQuery>,
    Json(body): Json<Value>,
) -> Result<StatusCode, Problem> {
    skills(&app, query).put(body).await
}

/// `DELETE /v1/config/skills`
#[utoipa::path(delete, path = "/v1/config/skills", tag = "config", params(SkillsQuery),
    responses((status = 204, description = "There are none any more")))]
pub(crate) async fn delete_skills(
    State(app): State<App>,
    Query(query): Query<SkillsQuery>,
) -> Result<StatusCode, Problem> {
    skills(&app, query).delete().await
}

/// `DELETE /v1/mcp`: what was configured without a query.
#[utoipa::path(delete, path = "/v1/mcp", tag = "config",
    responses((status = 204, description = "There is none any more")))]
pub(crate) async fn delete_all_mcp(State(app): State<App>) -> Result<StatusCode, Problem> {
    mcp(&app, McpQuery { directory: None, mcp_name: None }).delete().await
}

/// `DELETE /v1/skills`: what was configured without a query.
#[utoipa::path(delete, path = "/v1/skills", tag = "config",
    responses((status = 204, description = "There are none any more")))]
pub(crate) async fn delete_all_skills(State(app): State<App>) -> Result<StatusCode, Problem> {
    skills(&app, SkillsQuery { directory: None, skill_name: None }).delete().await
}
