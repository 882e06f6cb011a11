//! An agent in a jail, reached through the control plane, beside the same agent bare on the host.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures_util::StreamExt as _;
use reqwest::Client;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::peer::Peer;
use crate::proxy::Server;
use crate::table::{Report, Row, p50};

const CALLS: usize = 1000;
const STARTS: usize = 15;
const SLOW_STARTS: usize = 15;
const PATIENCE: Duration = Duration::from_secs(60);

/// A coding agent, as it is started bare.
struct Agent {
    name: &'static str,
    command: Vec<String>,
    rounds: usize,
}

pub(crate) async fn measure(report: &mut Report) -> anyhow::Result<()> {
    report.section(
        "An agent in a jail",
        "What the control plane adds to a call of a sandbox agent, and to the time until a coding agent says its first word. \
         The model is a stand-in on loopback.",
    );
    let model = Model::start().await?;
    let state =
        std::env::current_exe()?.parent().and_then(Path::parent).map(|at| at.join("agents-state"));
    let flavors = state.map(|state| state.join("flavors")).filter(|flavors| flavors.is_dir());
    let server = Server::with(&model.url, flavors.as_deref()).await?;
    let client = Client::builder().no_proxy().build()?;
    credential(&client, &server).await?;
    calls(report, &client, &server).await?;
    let program = std::env::current_exe()?.with_file_name("sandbox-agent").display().to_string();
    let mut agents = vec![Agent {
        name: "mock",
        command: vec![program, "mock-agent-process".to_owned()],
        rounds: STARTS,
    }];
    let claude = flavors.map(|flavors| {
        let modules = "agent-claude/bin/agent_processes/claude/node_modules";
        flavors.join(modules).join("@agentclientprotocol/claude-agent-acp/dist/index.js")
    });
    match claude.filter(|claude| claude.exists()) {
        Some(claude) => agents.push(Agent {
            name: "claude",
            command: vec!["node".to_owned(), claude.display().to_string()],
            rounds: SLOW_STARTS,
        }),
        None => report
            .add("\nClaude Code is not installed (`cargo xtask agents` does it): not measured.\n"),
    }
    for agent in &agents {
        first_words(report, &client, &server, &model, agent).await?;
    }
    Ok(())
}

/// A stand-in for a model's API.
struct Model {
    url: String,
    _child: Child,
}

impl Model {
    async fn start() -> anyhow::Result<Self> {
        let script =
            PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../compat/agents/model.mjs");
        let mut command = Command::new("node");
        let mut child = command.arg(script).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
        let out = child.stdout.take().context("its output")?;
        let url = BufReader::new(out).lines().next_line().await?.context("the model's URL")?;
        Ok(Self { url, _child: child })
    }
}

async fn credential(client: &Client, server: &Server) -> anyhow::Result<()> {
    let body = json!({ "service": "anthropic", "secret": "sk-bench" });
    let put = client.post(format!("{}/v1/credentials", server.api)).bearer_auth("bench");
    drop(put.json(&body).send().await?.error_for_status()?);
    Ok(())
}

async fn post(client: &Client, url: &str, token: &str, body: &Value) -> anyhow::Result<Value> {
    let answer = client.post(url).bearer_auth(token).json(body).send().await?;
    let answer = answer.error_for_status()?.text().await?;
    Ok(serde_json::from_str(answer.trim()).unwrap_or_default())
}

/// A workspace, and an agent in it.
async fn started(
    client: &Client,
    server: &Server,
    body: &Value,
) -> anyhow::Result<(String, String, String)> {
    let made = post(client, &format!("{}/v1/workspaces", server.api), "bench", &json!({})).await?;
    let id = made["id"].as_str().context("an id")?.to_owned();
    let url = format!("{}/v1/workspaces/{id}/agent", server.api);
    let agent = post(client, &url, "bench", body).await?;
    let text = |name: &str| agent[name].as_str().map(str::to_owned).context("an agent");
    Ok((id, text("url")?, text("token")?))
}

async fn calls(report: &mut Report, client: &Client, server: &Server) -> anyhow::Result<()> {
    let direct = Peer::ours()?.start().await?.0;
    let (id, url, token) = started(client, server, &json!({})).await?;
    let (mut bare, mut forwarded) = (Vec::new(), Vec::new());
    for _ in 0..CALLS {
        let began = Instant::now();
        drop(direct.get("/v1/health").send().await?.error_for_status()?.bytes().await?);
        bare.push(began.elapsed());
        let began = Instant::now();
        let request = client.get(format!("{url}/v1/health")).bearer_auth(&token);
        drop(request.send().await?.error_for_status()?.bytes().await?);
        forwarded.push(began.elapsed());
    }
    let added = p50(&forwarded).saturating_sub(p50(&bare));
    report.add("\n`GET /v1/health` of a sandbox agent, over one kept connection:\n");
    report.times(&[
        Row { name: "on the host, directly".to_owned(), times: bare },
        Row { name: "in a jail, through the control plane".to_owned(), times: forwarded },
    ]);
    report.add(&format!("\nAdded at the median: {:.2} ms.\n", added.as_secs_f64() * 1000.0));
    remove(client, server, &id).await
}

async fn remove(client: &Client, server: &Server, id: &str) -> anyhow::Result<()> {
    let request = client.delete(format!("{}/v1/workspaces/{id}", server.api)).bearer_auth("bench");
    drop(request.send().await?.error_for_status()?);
    Ok(())
}

async fn first_words(
    report: &mut Report,
    client: &Client,
    server: &Server,
    model: &Model,
    agent: &Agent,
) -> anyhow::Result<()> {
    let (mut bare, mut joined) = (Vec::new(), Vec::new());
    // Once for the caches of both.
    for round in 0..=agent.rounds {
        let first = tokio::time::timeout(PATIENCE, bare_first_word(agent, model)).await??;
        let made =
            post(client, &format!("{}/v1/workspaces", server.api), "bench", &json!({})).await?;
        let id = made["id"].as_str().context("an id")?.to_owned();
        let other = joined_first_word(client, server, agent, &id);
        let other = tokio::time::timeout(PATIENCE, other).await??;
        remove(client, server, &id).await?;
        if round > 0 {
            bare.push(first);
            joined.push(other);
        }
    }
    report.add(&format!(
        "\nFrom nothing to the first word of `{}`: bare, from its start on; in a jail, from `POST /v1/workspaces/{{id}}/agent` on.\n",
        agent.name
    ));
    report.times(&[
        Row { name: "bare on the host".to_owned(), times: bare },
        Row {
            name: "in a jail, with phantom tokens, through the control plane".to_owned(),
            times: joined,
        },
    ]);
    Ok(())
}

fn message(id: u32, method: &str, params: Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })
}

fn initialize() -> Value {
    message(1, "initialize", json!({ "protocolVersion": 1, "clientCapabilities": {} }))
}

fn prompt(session: &Value) -> Value {
    let words = json!([{ "type": "text", "text": "say pong" }]);
    message(3, "session/prompt", json!({ "sessionId": session, "prompt": words }))
}

async fn bare_first_word(agent: &Agent, model: &Model) -> anyhow::Result<Duration> {
    // Apart from each other, as in a jail: some agents look for a project only where it is not home.
    let (home, workspace) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let began = Instant::now();
    let mut child = Command::new(&agent.command[0])
        .args(&agent.command[1..])
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("HOME", home.path())
        .env("ANTHROPIC_BASE_URL", &model.url)
        .env("ANTHROPIC_API_KEY", "k")
        .envs([
            ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1"),
            ("DISABLE_AUTOUPDATER", "1"),
            ("IS_SANDBOX", "1"),
        ])
        .current_dir(workspace.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    let mut input = child.stdin.take().context("its input")?;
    let mut lines = BufReader::new(child.stdout.take().context("its output")?).lines();
    let mut say = async |message: Value| input.write_all(format!("{message}\n").as_bytes()).await;
    say(initialize()).await?;
    while let Some(line) = lines.next_line().await? {
        let heard: Value = serde_json::from_str(&line).unwrap_or_default();
        if heard["id"] == 1 {
            let params = json!({ "cwd": workspace.path(), "mcpServers": [] });
            say(message(2, "session/new", params)).await?;
        } else if heard["id"] == 2 {
            say(prompt(&heard["result"]["sessionId"])).await?;
        } else if heard["params"]["update"]["sessionUpdate"] == "agent_message_chunk" {
            let took = began.elapsed();
            // With what it has started, which would be in the way of whoever is next.
            let group = child.id().context("it runs")?;
            Command::new("kill").args(["-9", "--", &format!("-{group}")]).status().await?;
            child.wait().await?;
            return Ok(took);
        }
    }
    anyhow::bail!("{} said nothing", agent.name)
}

async fn joined_first_word(
    client: &Client,
    server: &Server,
    agent: &Agent,
    id: &str,
) -> anyhow::Result<Duration> {
    let began = Instant::now();
    let named = if agent.name == "mock" { json!([]) } else { json!([agent.name]) };
    let body = json!({ "services": ["anthropic"], "agents": named });
    let url = format!("{}/v1/workspaces/{id}/agent", server.api);
    let started = post(client, &url, "bench", &body).await?;
    let token = started["token"].as_str().context("a token")?.to_owned();
    let at = format!("{url}/v1/acp/first?agent={}", agent.name);
    drop(post(client, &at, &token, &initialize()).await?);
    let stream = client.get(&at).bearer_auth(&token).header("accept", "text/event-stream");
    let mut stream = stream.send().await?.error_for_status()?.bytes_stream();
    let params = json!({ "cwd": "/workspace", "mcpServers": [] });
    let made = post(client, &at, &token, &message(2, "session/new", params)).await?;
    let words = prompt(&made["result"]["sessionId"]);
    let asked = post(client, &at, &token, &words);
    let heard = async {
        let mut text = String::new();
        while let Some(piece) = stream.next().await {
            text.push_str(&String::from_utf8_lossy(&piece?));
            if text.contains("agent_message_chunk") {
                return Ok(began.elapsed());
            }
        }
        anyhow::bail!("{} said nothing: {text}", agent.name)
    };
    let (took, _) = tokio::join!(heard, asked);
    took
}
