//! A sandbox agent to measure: ours, or the original from npm, each in a home of its own.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use reqwest::{Client, RequestBuilder};
use tokio::process::{Child, Command};

/// The original, as published.
const ORIGINAL: &str = "@sandbox-agent/cli-linux-x64@0.4.2";

/// An agent that says twenty thousand things when it is asked to.
const FLOOD: &str = r#"#!/usr/bin/python3
import json, sys
for line in sys.stdin:
    message = json.loads(line)
    if message.get("method") == "flood":
        for n in range(20000):
            sys.stdout.write('{"jsonrpc":"2.0","method":"session/update","params":{"sessionId":"s","n":%d}}\n' % n)
    if "id" in message:
        sys.stdout.write(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": {}}) + "\n")
    sys.stdout.flush()
"#;

pub(crate) struct Peer {
    pub(crate) name: &'static str,
    program: PathBuf,
    home: tempfile::TempDir,
}

/// A server that runs. It ends with this.
pub(crate) struct Running {
    pub(crate) url: String,
    pub(crate) client: Client,
    child: Child,
}

impl Peer {
    pub(crate) fn ours() -> anyhow::Result<Self> {
        let program = std::env::current_exe()?.with_file_name("sandbox-agent");
        anyhow::ensure!(program.exists(), "sandbox-agent is not built: use `cargo xtask bench`");
        Self::new("ours", program)
    }

    /// Fetches the original from npm, once.
    pub(crate) async fn original() -> anyhow::Result<Self> {
        let target = std::env::current_exe()?.parent().context("a directory")?.join("peers");
        let program = target.join("node_modules/@sandbox-agent/cli-linux-x64/bin/sandbox-agent");
        if !program.exists() {
            std::fs::create_dir_all(&target)?;
            let mut npm = Command::new("npm");
            npm.args(["install", "--no-audit", "--no-fund", "--loglevel=error", "--prefix"]);
            let status = npm.arg(&target).arg(ORIGINAL).stdout(Stdio::null()).status().await?;
            anyhow::ensure!(status.success(), "npm could not fetch {ORIGINAL}");
        }
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755))?;
        Self::new("the original, 0.4.2", program)
    }

    fn new(name: &'static str, program: PathBuf) -> anyhow::Result<Self> {
        let home = tempfile::tempdir()?;
        let agents = home.path().join(".local/share/sandbox-agent/bin/agent_processes");
        std::fs::create_dir_all(&agents)?;
        for file in
            [agents.join("claude-acp"), home.path().join(".local/share/sandbox-agent/bin/claude")]
        {
            std::fs::write(&file, FLOOD)?;
            std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o755))?;
        }
        Ok(Self { name, program, home })
    }

    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    /// Starts a server; gives it, and how long it took until it was healthy.
    pub(crate) async fn start(&self) -> anyhow::Result<(Running, Duration)> {
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let client = Client::builder().no_proxy().build()?;
        let url = format!("http://127.0.0.1:{port}");
        let began = Instant::now();
        let mut command = Command::new(&self.program);
        command
            .args(["server", "--no-token", "--no-telemetry", "--port", &port.to_string()])
            .env_clear()
            .env("HOME", self.home.path())
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("SANDBOX_AGENT_LOG_HTTP", "0")
            .env("RUST_LOG", "error")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        let child = command.spawn()?;
        let running = Running { url, client, child };
        while !running
            .get("/v1/health")
            .send()
            .await
            .is_ok_and(|answer| answer.status().is_success())
        {
            anyhow::ensure!(
                began.elapsed() < Duration::from_secs(20),
                "{} does not come up",
                self.name
            );
            tokio::time::sleep(Duration::from_micros(500)).await;
        }
        Ok((running, began.elapsed()))
    }
}

impl Running {
    pub(crate) fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(format!("{}{path}", self.url))
    }

    pub(crate) fn post(&self, path: &str, body: &serde_json::Value) -> RequestBuilder {
        self.client.post(format!("{}{path}", self.url)).json(body)
    }

    /// The processes of the server itself: what was started, and a child of it of the same program.
    fn processes(&self) -> Vec<u32> {
        let Some(first) = self.child.id() else { return Vec::new() };
        let program = |pid: u32| std::fs::read_link(format!("/proc/{pid}/exe")).ok();
        let children = std::fs::read_to_string(format!("/proc/{first}/task/{first}/children"));
        let children = children.unwrap_or_default();
        let same = children.split_ascii_whitespace().filter_map(|pid| pid.parse().ok());
        let same = same.filter(|pid| program(*pid) == program(first));
        std::iter::once(first).chain(same).collect()
    }

    /// Memory in MiB, what is shared counted once: now, and the most there was.
    pub(crate) fn memory(&self) -> (f64, f64) {
        let field = |pid: u32, file: &str, name: &str| -> f64 {
            let text = std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            line.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or_default() / 1024.0
        };
        let all = self.processes();
        let now = all.iter().map(|pid| field(*pid, "smaps_rollup", "Pss:")).sum();
        let most = all.iter().map(|pid| field(*pid, "status", "VmHWM:")).fold(0.0, f64::max);
        (now, most)
    }

    /// Forgets the most there was.
    pub(crate) fn forget_the_most(&self) {
        for pid in self.processes() {
            drop(std::fs::write(format!("/proc/{pid}/clear_refs"), "5"));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Politely: what a killed one has started would be left.
        if let Some(pid) = self.child.id() {
            drop(Command::new("kill").arg(pid.to_string()).spawn());
            let deadline = Instant::now() + Duration::from_secs(5);
            while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
}
