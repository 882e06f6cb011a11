//! A proxy hop: direct, through nginx that sets a header, and through the phantom proxy.
//!
//! The upstream is nginx, too: a small answer, kept connections. nginx as the peer does the same work:
//! one `location`, `Authorization` replaced. wrk makes the load.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use crate::table::{Report, Row, ms};

const ROUNDS: usize = 400;

/// A real server on a fresh state.
pub(crate) struct Server {
    pub(crate) api: String,
    proxy: String,
    _child: Child,
    _state: tempfile::TempDir,
}

impl Server {
    pub(crate) async fn start(upstream: &str) -> anyhow::Result<Self> {
        Self::with(upstream, None).await
    }

    /// With flavors that are elsewhere.
    pub(crate) async fn with(
        upstream: &str,
        flavors: Option<&std::path::Path>,
    ) -> anyhow::Result<Self> {
        let state = tempfile::tempdir()?;
        if let Some(flavors) = flavors {
            std::os::unix::fs::symlink(flavors, state.path().join("flavors"))?;
        }
        let (api, proxy) = (free_port()?, free_port()?);
        let program = std::env::current_exe()?.with_file_name("agentjail");
        let child = command(&program)
            .arg("serve")
            .args([
                "--ctl-addr",
                &format!("127.0.0.1:{api}"),
                "--proxy-addr",
                &format!("127.0.0.1:{proxy}"),
            ])
            .args(["--api-key", "bench@bench:operator", "--log", "error"])
            .args(["--upstream", &format!("openai={upstream}")])
            .args(["--upstream", &format!("anthropic={upstream}"), "--state-dir"])
            .arg(state.path())
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let server = Self {
            api: format!("http://127.0.0.1:{api}"),
            proxy: format!("http://127.0.0.1:{proxy}"),
            _child: child,
            _state: state,
        };
        wait_for(&format!("{}/healthz", server.api)).await?;
        Ok(server)
    }
}

pub(crate) async fn measure(report: &mut Report) -> anyhow::Result<()> {
    report.section(
        "A proxy hop",
        "The upstream is nginx with a small answer. Beside it nginx as a proxy that replaces `Authorization`, and the \
         phantom proxy, which looks a token up, matches a scope, opens a key and writes an audit row for each request.",
    );
    let directory = tempfile::tempdir()?;
    let (upstream, peer) = (free_port()?, free_port()?);
    let Ok(_nginx) = nginx(directory.path(), upstream, peer) else {
        report.add("\nnginx is not installed: not measured.\n");
        return Ok(());
    };
    let upstream = format!("http://127.0.0.1:{upstream}");
    wait_for(&format!("{upstream}/v1/models")).await?;
    let server = Server::start(&upstream).await?;
    let client = reqwest::Client::builder().no_proxy().build()?;
    let token = token(&client, &server).await?;
    let targets = [
        ("direct", format!("{upstream}/v1/models")),
        ("through nginx", format!("http://127.0.0.1:{peer}/v1/models")),
        ("through the phantom proxy", format!("{}/v1/openai/v1/models", server.proxy)),
    ];
    let mut rows: Vec<Row> = targets
        .iter()
        .map(|(name, _)| Row { name: (*name).to_owned(), times: Vec::new() })
        .collect();
    for _ in 0..ROUNDS {
        for (row, (_, url)) in rows.iter_mut().zip(&targets) {
            let began = Instant::now();
            drop(
                client
                    .get(url)
                    .bearer_auth(&token)
                    .send()
                    .await?
                    .error_for_status()?
                    .bytes()
                    .await?,
            );
            row.times.push(began.elapsed());
        }
    }
    report.add("\nOne request at a time, over one kept connection:\n");
    report.times(&rows);
    let mut rates = Vec::new();
    for (name, url) in &targets {
        rates.push((name, wrk(url, &token).await?));
    }
    report.add(
        "\nThirty-two connections for five seconds, wrk with one thread on the same two cores:\n",
    );
    report.add("\n| | requests/s | × nginx |\n| --- | ---: | ---: |\n");
    let nginx_rate = rates[1].1;
    for (name, rate) in rates {
        report.add(&format!("| {name} | {rate:.0} | {:.2} |\n", rate / nginx_rate));
    }
    Ok(())
}

async fn token(client: &reqwest::Client, server: &Server) -> anyhow::Result<String> {
    let post = async |path: &str, body: Value| {
        let request = client.post(format!("{}{path}", server.api)).bearer_auth("bench").json(&body);
        anyhow::Ok(request.send().await?.error_for_status()?.json::<Value>().await?)
    };
    post("/v1/credentials", json!({ "service": "openai", "secret": "sk-bench" })).await?;
    let scopes = json!({ "openai": ["/v1/*"] });
    let session = post("/v1/sessions", json!({ "services": ["openai"], "scopes": scopes })).await?;
    Ok(session["env"]["OPENAI_API_KEY"].as_str().context("a token")?.to_owned())
}

/// Ended by a signal it can handle: killed, it would leave its workers behind.
struct Nginx(Child);

impl Drop for Nginx {
    fn drop(&mut self) {
        if let Some(pid) = self.0.id() {
            drop(command("kill").arg(pid.to_string()).spawn());
        }
    }
}

/// One nginx that is both the upstream and the peer.
fn nginx(directory: &Path, upstream: u16, peer: u16) -> anyhow::Result<Nginx> {
    let path = directory.display();
    let config = format!(
        "daemon off; worker_processes 2; pid {path}/pid; error_log stderr crit; events {{ worker_connections 1024; }}\n\
         http {{ access_log off; keepalive_requests 1000000; client_body_temp_path {path}/b; proxy_temp_path {path}/p; \
         fastcgi_temp_path {path}/f; uwsgi_temp_path {path}/u; scgi_temp_path {path}/s;\n\
         upstream model {{ server 127.0.0.1:{upstream}; keepalive 64; keepalive_requests 1000000; }}\n\
         server {{ listen 127.0.0.1:{upstream} backlog=1024; location / {{ default_type application/json; return 200 '{{\"data\":[]}}'; }} }}\n\
         server {{ listen 127.0.0.1:{peer} backlog=1024; location / {{ proxy_pass http://model; proxy_http_version 1.1; \
         proxy_set_header Connection ''; proxy_set_header Authorization 'Bearer sk-bench'; }} }} }}\n"
    );
    let file: PathBuf = directory.join("nginx.conf");
    std::fs::write(&file, config)?;
    let mut nginx = command("nginx");
    nginx.arg("-c").arg(&file).stdin(Stdio::null()).stderr(Stdio::null());
    Ok(Nginx(nginx.spawn()?))
}

async fn wrk(url: &str, token: &str) -> anyhow::Result<f64> {
    let header = format!("authorization: Bearer {token}");
    let output = command("wrk").args(["-t1", "-c32", "-d5s", "-H", &header, url]).output().await?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    anyhow::ensure!(!text.contains("Non-2xx"), "{text}");
    let line =
        text.lines().find_map(|line| line.strip_prefix("Requests/sec:")).context(text.clone())?;
    Ok(line.trim().parse()?)
}

async fn wait_for(url: &str) -> anyhow::Result<()> {
    let began = Instant::now();
    let client = reqwest::Client::builder().no_proxy().build()?;
    while client.get(url).send().await.is_err() {
        anyhow::ensure!(
            began.elapsed() < Duration::from_secs(10),
            "{url} is not up after {}",
            ms(began.elapsed())
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    Command::new(program)
}

fn free_port() -> anyhow::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
