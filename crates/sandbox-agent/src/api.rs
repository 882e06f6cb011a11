//! `sandbox-agent api`: the API of a running server, from a shell.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use futures_util::StreamExt as _;
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};

use crate::place;
use crate::server::Access;

/// Call a running server
#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// Where it is
    #[arg(short, long, global = true, default_value = "http://127.0.0.1:2468", value_name = "URL")]
    endpoint: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Coding agents
    #[command(subcommand)]
    Agents(Agents),
    /// Messages of the agent client protocol
    #[command(subcommand)]
    Acp(Acp),
}

#[derive(Debug, Subcommand)]
enum Agents {
    /// Which there are
    List,
    /// What can be set of each
    Report,
    /// Install one
    Install {
        agent: String,
        /// Also if it is there
        #[arg(short, long)]
        reinstall: bool,
        #[arg(long, value_name = "VERSION")]
        agent_version: Option<String>,
        #[arg(long, value_name = "VERSION")]
        agent_process_version: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
enum Acp {
    /// Send one message
    Post {
        #[arg(long)]
        server_id: String,
        #[arg(long)]
        agent: Option<String>,
        /// The message
        #[arg(long, conflicts_with = "json_file", required_unless_present = "json_file")]
        json: Option<String>,
        /// A file with the message in it
        #[arg(long, value_name = "FILE")]
        json_file: Option<PathBuf>,
    },
    /// Print the events of a server as they come
    Stream {
        #[arg(long)]
        server_id: String,
        /// Go on after this event
        #[arg(long, value_name = "ID")]
        last_event_id: Option<u64>,
    },
    /// End a server and its agent
    Close {
        #[arg(long)]
        server_id: String,
    },
}

/// A server to call.
struct Api {
    client: reqwest::Client,
    endpoint: String,
    token: Option<agent::Token>,
}

pub(crate) fn api(access: Access, flags: Flags) -> anyhow::Result<ExitCode> {
    if !flags.endpoint.starts_with("http://") {
        bail!("--endpoint {}: http:// is expected", flags.endpoint);
    }
    let api = Api {
        client: reqwest::Client::builder().no_proxy().build()?,
        endpoint: flags.endpoint.trim_end_matches('/').to_owned(),
        token: access.token()?,
    };
    place::wait_for(api.run(flags.command)).map(|()| ExitCode::SUCCESS)
}

/// Whether a server answers, be it with a refusal.
pub(crate) async fn answers(endpoint: &str) -> anyhow::Result<()> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    client.get(format!("{endpoint}/")).send().await?.error_for_status()?;
    Ok(())
}

impl Api {
    async fn run(&self, command: Command) -> anyhow::Result<()> {
        match command {
            Command::Agents(Agents::List) => {
                place::print(&self.json(self.request(Method::GET, "/v1/agents")).await?)
            }
            Command::Agents(Agents::Report) => self.report().await,
            Command::Agents(Agents::Install {
                agent,
                reinstall,
                agent_version,
                agent_process_version,
            }) => {
                let body = json!({
                    "reinstall": reinstall, "agentVersion": agent_version,
                    "agentProcessVersion": agent_process_version,
                });
                let path = format!("/v1/agents/{}/install", segment(&agent));
                place::print(&self.json(self.request(Method::POST, &path).json(&body)).await?)
            }
            Command::Acp(Acp::Post { server_id, agent, json, json_file }) => {
                let text = match (json, json_file) {
                    (Some(text), _) => text,
                    (None, Some(file)) => std::fs::read_to_string(&file)
                        .with_context(|| format!("--json-file {}", file.display()))?,
                    (None, None) => bail!("give --json or --json-file"),
                };
                self.post(&server_id, agent.as_deref(), text).await
            }
            Command::Acp(Acp::Stream { server_id, last_event_id }) => {
                self.stream(&server_id, last_event_id).await
            }
            Command::Acp(Acp::Close { server_id }) => {
                let path = format!("/v1/acp/{}", segment(&server_id));
                self.checked(self.request(Method::DELETE, &path)).await.map(drop)
            }
        }
    }

    async fn report(&self) -> anyhow::Result<()> {
        let list = self.json(self.request(Method::GET, "/v1/agents?config=true")).await?;
        let of = |agent: &Value, category: &str| {
            let options = agent["configOptions"].as_array().into_iter().flatten();
            options
                .into_iter()
                .find(|option| option["category"] == category)
                .cloned()
                .unwrap_or_default()
        };
        let told = |agent: &Value| {
            let model = of(agent, "model");
            json!({
                "id": agent["id"],
                "installed": agent["installed"],
                "models": { "currentValue": model["currentValue"], "values": model["options"] },
                "modes": of(agent, "mode")["options"],
                "thoughtLevels": of(agent, "thought_level")["options"],
            })
        };
        let agents: Vec<Value> =
            list["agents"].as_array().into_iter().flatten().map(told).collect();
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
        let at = u64::try_from(since.as_millis())?;
        place::print(&json!({ "generatedAtMs": at, "endpoint": self.endpoint, "agents": agents }))
    }

    async fn post(&self, server: &str, agent: Option<&str>, text: String) -> anyhow::Result<()> {
        let query = agent.map(|agent| format!("?agent={}", segment(agent))).unwrap_or_default();
        let path = format!("/v1/acp/{}{query}", segment(server));
        let request = self.request(Method::POST, &path).header("content-type", "application/json");
        let text = self.checked(request.body(text)).await?.text().await?;
        if text.trim().is_empty() { Ok(()) } else { place::print(&serde_json::from_str(&text)?) }
    }

    async fn stream(&self, server: &str, last: Option<u64>) -> anyhow::Result<()> {
        let path = format!("/v1/acp/{}", segment(server));
        let mut request = self.request(Method::GET, &path).header("accept", "text/event-stream");
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let mut pieces = self.checked(request).await?.bytes_stream();
        while let Some(piece) = pieces.next().await {
            if std::io::stdout()
                .write_all(&piece?)
                .and_then(|()| std::io::stdout().flush())
                .is_err()
            {
                return Ok(());
            }
        }
        Ok(())
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.endpoint));
        match &self.token {
            Some(token) => request.bearer_auth(token.reveal()),
            None => request,
        }
    }

    async fn json(&self, request: RequestBuilder) -> anyhow::Result<Value> {
        Ok(serde_json::from_str(&self.checked(request).await?.text().await?)?)
    }

    async fn checked(&self, request: RequestBuilder) -> anyhow::Result<Response> {
        let sent = request.send().await;
        let response = sent.with_context(|| format!("no server answers on {}", self.endpoint))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let problem: Value = serde_json::from_str(&response.text().await?).unwrap_or_default();
        bail!("{}", problem["detail"].as_str().map_or_else(|| status.to_string(), str::to_owned))
    }
}

/// A part of a path.
fn segment(text: &str) -> String {
    let plain =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    let mut all = String::new();
    for byte in text.bytes() {
        if plain(byte) {
            all.push(char::from(byte));
        } else {
            let _ = write!(all, "%{byte:02X}");
        }
    }
    all
}
