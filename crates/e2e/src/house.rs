//! A server with a state directory of its own.

use std::os::unix::fs::chown;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use reqwest::{Client, Method, RequestBuilder, Response};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::upstream::Upstream;
use crate::user::{Delegated, USER, can_become, program};

/// Three keys: two tenants' operators and an admin.
pub const KEYS: &str = "acme-key@acme:operator,globex-key@globex:operator,root-key@root:admin";

/// The real key that must be found nowhere but at the upstream.
pub const CANARY: &str = "sk-canary-7f3a91d2c64e8b05";

/// A server and what it needs.
#[derive(Debug)]
pub struct House {
    pub upstream: Upstream,
    pub api: String,
    pub proxy: String,
    pub client: Client,
    pub state: TempDir,
    child: Child,
    ports: (u16, u16),
    how: How,
}

/// How a server is started.
#[derive(Debug, Default)]
struct How {
    flags: Vec<String>,
    /// Whose groups the server runs in, if it is an ordinary user's.
    delegated: Option<Delegated>,
    /// The protection that a build for tests leaves out.
    without: Option<String>,
}

/// Who speaks.
#[derive(Debug, Clone, Copy)]
pub struct As<'a>(pub &'a str);

impl House {
    /// Starts a server.
    pub async fn new() -> Self {
        Self::with(&[]).await
    }

    /// Starts a server with more flags.
    ///
    /// # Panics
    ///
    /// If it does not come up.
    pub async fn with(flags: &[&str]) -> Self {
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        Self::started(How { flags, ..How::default() }).await
    }

    /// One server as these tests run, one as an ordinary user runs it.
    ///
    /// # Panics
    ///
    /// If one does not come up, or the tests are no root's.
    pub async fn of_root_and_of_a_user() -> [Self; 2] {
        Self::of_both(None).await
    }

    /// The same two, of the build for tests, that leave a protection out.
    ///
    /// # Panics
    ///
    /// If one does not come up, or the tests are no root's.
    pub async fn of_both_without(protection: &str) -> [Self; 2] {
        Self::of_both(Some(protection.to_owned())).await
    }

    async fn of_both(without: Option<String>) -> [Self; 2] {
        assert!(can_become(), "this test begins as root");
        let of_root = How { without: without.clone(), ..How::default() };
        let of_user = How { without, delegated: Some(Delegated::new()), ..How::default() };
        [Self::started(of_root).await, Self::started(of_user).await]
    }

    async fn started(how: How) -> Self {
        let state = tempfile::tempdir().expect("a temporary directory");
        if how.delegated.is_some() {
            chown(state.path(), Some(USER), Some(USER)).expect("it is ours");
        }
        let upstream = Upstream::start().await;
        let ports = (free_port(), free_port());
        let child = start(&upstream, state.path(), ports, &how);
        let house = Self {
            api: format!("http://127.0.0.1:{}", ports.0),
            proxy: format!("http://127.0.0.1:{}", ports.1),
            client: Client::builder()
                .no_proxy()
                .redirect(reqwest::redirect::Policy::none())
                .build()
                .expect("a client"),
            upstream,
            state,
            child,
            ports,
            how,
        };
        house.wait_until_up().await;
        house
    }

    async fn wait_until_up(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.client.get(format!("{}/healthz", self.api)).send().await.is_err() {
            assert!(Instant::now() < deadline, "the server did not come up");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The server's process id.
    ///
    /// # Panics
    ///
    /// If it has ended.
    pub fn pid(&self) -> u32 {
        self.child.id().expect("the server runs")
    }

    /// Sends the server a signal and waits for its end; gives its exit code.
    ///
    /// # Panics
    ///
    /// If it does not end.
    pub async fn end(&mut self, signal: Signal) -> Option<i32> {
        let pid = Pid::from_raw(self.pid().cast_signed()).expect("a process id");
        kill_process(pid, signal).expect("the server is ours");
        let ended = tokio::time::timeout(Duration::from_secs(20), self.child.wait()).await;
        ended.expect("the server ends").expect("it can be waited for").code()
    }

    /// Starts the server again on the same state.
    pub async fn restart(&mut self) {
        self.child = start(&self.upstream, self.state.path(), self.ports, &self.how);
        self.wait_until_up().await;
    }

    pub fn request(&self, who: As<'_>, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.api)).bearer_auth(who.0)
    }

    /// Sends JSON; gives status and answer.
    ///
    /// # Panics
    ///
    /// If there is no answer.
    pub async fn post(&self, who: As<'_>, path: &str, body: Value) -> (u16, Value) {
        answer(self.request(who, Method::POST, path).json(&body).send().await.expect("an answer"))
            .await
    }

    /// # Panics
    ///
    /// If there is no answer.
    pub async fn get(&self, who: As<'_>, path: &str) -> (u16, Value) {
        answer(self.request(who, Method::GET, path).send().await.expect("an answer")).await
    }

    /// # Panics
    ///
    /// If there is no answer.
    pub async fn delete(&self, who: As<'_>, path: &str) -> (u16, Value) {
        answer(self.request(who, Method::DELETE, path).send().await.expect("an answer")).await
    }

    /// A session of acme for one service whose key is the canary; gives it as it was answered.
    ///
    /// # Panics
    ///
    /// If it is not made.
    pub async fn session(&self, service: &str) -> Value {
        self.session_with(json!({ "services": [service] })).await
    }

    /// # Panics
    ///
    /// If it is not made.
    pub async fn session_with(&self, body: Value) -> Value {
        for service in body["services"].as_array().expect("services") {
            let credential = json!({ "service": service, "secret": CANARY });
            let (status, answer) = self.post(As("acme-key"), "/v1/credentials", credential).await;
            assert_eq!(status, 200, "{answer}");
        }
        let (status, session) = self.post(As("acme-key"), "/v1/sessions", body).await;
        assert_eq!(status, 201, "{session}");
        session
    }

    /// Runs a command in a session's jail.
    ///
    /// # Panics
    ///
    /// If it does not run.
    pub async fn exec(&self, session: &Value, body: Value) -> Value {
        let path = format!("/v1/sessions/{}/exec", session["id"].as_str().expect("an id"));
        let (status, result) = self.post(As("acme-key"), &path, body).await;
        assert_eq!(status, 200, "{result}");
        result
    }

    /// Makes a workspace of acme; gives it as it was answered.
    ///
    /// # Panics
    ///
    /// If it is not made.
    pub async fn workspace(&self, body: Value) -> Value {
        let (status, made) = self.post(As("acme-key"), "/v1/workspaces", body).await;
        assert_eq!(status, 201, "{made}");
        made
    }

    /// Runs a shell script in a workspace.
    ///
    /// # Panics
    ///
    /// If it does not run.
    pub async fn in_workspace(&self, workspace: &Value, script: &str) -> Value {
        let path = format!("/v1/workspaces/{}/exec", id(workspace));
        let body = json!({ "cmd": "sh", "args": ["-c", script] });
        let (status, result) = self.post(As("acme-key"), &path, body).await;
        assert_eq!(status, 200, "{result}");
        result
    }

    /// The same, for what it says.
    ///
    /// # Panics
    ///
    /// If it fails.
    pub async fn says(&self, workspace: &Value, script: &str) -> String {
        let result = self.in_workspace(workspace, script).await;
        assert_eq!(result["exit_code"], 0, "{result}");
        result["stdout"].as_str().expect("text").to_owned()
    }

    /// Takes a snapshot of a workspace.
    ///
    /// # Panics
    ///
    /// If it is not taken.
    pub async fn snapshot(&self, workspace: &Value, name: &str) -> Value {
        let path = format!("/v1/workspaces/{}/snapshot", id(workspace));
        let (status, taken) = self.post(As("acme-key"), &path, json!({ "name": name })).await;
        assert_eq!(status, 201, "{taken}");
        taken
    }

    /// Makes a workspace of a snapshot.
    ///
    /// # Panics
    ///
    /// If it is not made.
    pub async fn restored(&self, snapshot: &Value) -> Value {
        let body = json!({ "snapshot_id": snapshot["id"], "parent_workspace_id": snapshot["workspace_id"] });
        let path = "/v1/workspaces/from-snapshot";
        let (status, made) = self.post(As("acme-key"), path, body).await;
        assert_eq!(status, 201, "{made}");
        made
    }

    /// Trees on disk, sealed or written to.
    pub fn trees(&self) -> Vec<std::path::PathBuf> {
        let trees = self.state.path().join("state/trees");
        let entries = std::fs::read_dir(trees).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    }

    /// Runs shell code.
    ///
    /// # Panics
    ///
    /// If it does not run.
    pub async fn sh(&self, code: &str) -> Value {
        let body = json!({ "language": "bash", "code": code });
        let (status, result) = self.post(As("acme-key"), "/v1/runs", body).await;
        assert_eq!(status, 201, "{result}");
        result
    }
}

impl Drop for House {
    fn drop(&mut self) {
        // Asked to stop, so that it takes its jails with it; killed if a test left it deaf.
        if let Some(pid) = self.child.id().and_then(|pid| Pid::from_raw(pid.cast_signed())) {
            let _ = kill_process(pid, Signal::TERM);
            let deadline = Instant::now() + Duration::from_secs(10);
            while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
            drop(self.child.start_kill());
        }
    }
}

/// The id of something that was answered.
///
/// # Panics
///
/// If it has none.
pub fn id(of: &Value) -> &str {
    of["id"].as_str().unwrap_or_else(|| panic!("no id in {of}"))
}

/// Status and body; a body that is not JSON as a string.
///
/// # Panics
///
/// If the body breaks off.
pub async fn answer(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let text = response.text().await.expect("a body");
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

/// Waits until something holds.
///
/// # Panics
///
/// If it does not within ten seconds.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds().await {
        assert!(Instant::now() < deadline, "not in ten seconds: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn start(upstream: &Upstream, state: &Path, ports: (u16, u16), how: &How) -> Child {
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(state.join("server.log"))
        .expect("a log file");
    let name = if how.without.is_some() { "agentjail-mutations" } else { "agentjail" };
    let mut command = match &how.delegated {
        None => Command::new(crate::program().with_file_name(name)),
        Some(delegated) => delegated.command(&program(name)),
    };
    command.env_clear();
    command.envs(how.without.iter().map(|protection| ("AGENTJAIL_WITHOUT", protection)));
    command
        .arg("serve")
        .args(["--ctl-addr", &format!("127.0.0.1:{}", ports.0)])
        .args(["--proxy-addr", &format!("127.0.0.1:{}", ports.1)])
        .arg("--state-dir")
        .arg(state.join("state"))
        .args(["--log", "debug"])
        .env("PATH", "/usr/bin:/bin")
        .env("AGENTJAIL_API_KEY", KEYS)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .kill_on_drop(true);
    for service in ["openai", "anthropic", "github", "stripe"] {
        command.args(["--upstream", &format!("{service}={}", upstream.url())]);
    }
    command.args(&how.flags);
    command.spawn().expect("the program starts")
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").port()
}
