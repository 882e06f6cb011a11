//! A sandbox agent with a home of its own.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use reqwest::{Client, Method, RequestBuilder};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::house::answer;

/// The token that opens it.
pub const TOKEN: &str = "sandbox-token-5d1f";

/// A running server. It ends with this, and all that it started.
#[derive(Debug)]
pub struct Sandbox {
    pub url: String,
    pub client: Client,
    pub home: TempDir,
    child: Child,
    port: u16,
    flags: Vec<String>,
    variables: Vec<(String, String)>,
}

/// The program, built beside the tests.
///
/// # Panics
///
/// If it is not there: `cargo xtask test` builds it first.
pub fn program() -> PathBuf {
    let program = crate::program().with_file_name("sandbox-agent");
    assert!(
        program.exists(),
        "{} is not built: run `cargo build -p sandbox-agent`",
        program.display()
    );
    program
}

impl Sandbox {
    pub async fn new() -> Self {
        Self::with(&[], &[]).await
    }

    /// Starts a server with more flags, and more in its environment.
    ///
    /// # Panics
    ///
    /// If it does not come up.
    pub async fn with(flags: &[&str], variables: &[(&str, &str)]) -> Self {
        let home = tempfile::tempdir().expect("a temporary directory");
        let port = free_port();
        let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let variables: Vec<(String, String)> = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let child = start(home.path(), port, &flags, &variables);
        let client = Client::builder().no_proxy().build().expect("a client");
        let url = format!("http://127.0.0.1:{port}");
        let sandbox = Self { url, client, home, child, port, flags, variables };
        sandbox.wait_until_up().await;
        sandbox
    }

    async fn wait_until_up(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.get("/v1/health").send().await.is_err() {
            assert!(Instant::now() < deadline, "the server did not come up");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The process that was started: the keeper.
    ///
    /// # Panics
    ///
    /// If it has ended.
    pub fn keeper(&self) -> Pid {
        let pid = self.child.id().expect("the server runs").cast_signed();
        Pid::from_raw(pid).expect("a process id")
    }

    /// The server itself, the keeper's child.
    ///
    /// # Panics
    ///
    /// If there is none.
    pub fn server(&self) -> Pid {
        let keeper = self.keeper().as_raw_nonzero();
        let children = std::fs::read_to_string(format!("/proc/{keeper}/task/{keeper}/children"));
        let children = children.expect("/proc");
        let first = children.split_ascii_whitespace().next().expect("a server");
        Pid::from_raw(first.parse().expect("a number")).expect("a process id")
    }

    /// Sends a signal to the keeper or the server, and waits for the keeper's end.
    ///
    /// # Panics
    ///
    /// If it does not end.
    pub async fn end(&mut self, whom: Pid, signal: Signal) -> Option<i32> {
        kill_process(whom, signal).expect("it is ours");
        let ended = tokio::time::timeout(Duration::from_secs(20), self.child.wait()).await;
        ended.expect("the server ends").expect("it can be waited for").code()
    }

    /// Starts the server again: same port, same home.
    pub async fn restart(&mut self) {
        self.child = start(self.home.path(), self.port, &self.flags, &self.variables);
        self.wait_until_up().await;
    }

    /// A path in the home.
    pub fn path(&self, name: &str) -> String {
        self.home.path().join(name).display().to_string()
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url)).bearer_auth(TOKEN)
    }

    pub fn get(&self, path: &str) -> RequestBuilder {
        self.request(Method::GET, path)
    }

    /// Sends a request; gives status and answer.
    ///
    /// # Panics
    ///
    /// If there is no answer.
    pub async fn ask(&self, request: RequestBuilder) -> (u16, Value) {
        answer(request.send().await.expect("an answer")).await
    }

    /// Sends JSON; gives status and answer.
    pub async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        self.ask(self.request(Method::POST, path).json(&body)).await
    }

    /// Runs shell code; gives the result.
    ///
    /// # Panics
    ///
    /// If it does not run.
    pub async fn sh(&self, code: &str) -> Value {
        let body = json!({ "command": "sh", "args": ["-c", code] });
        let (status, result) = self.post("/v1/processes/run", body).await;
        assert_eq!(status, 200, "{result}");
        result
    }

    /// What the program wrote to its terminal.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.home.path().join("server.log")).unwrap_or_default()
    }

    /// Puts a script where the server looks for an agent's ACP process.
    ///
    /// # Panics
    ///
    /// If it cannot be written.
    pub fn put_agent(&self, agent: &str, script: &str) {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = self.home.path().join(".local/share/sandbox-agent/bin/agent_processes");
        std::fs::create_dir_all(&directory).expect("a directory of ours");
        let file = directory.join(format!("{agent}-acp"));
        std::fs::write(&file, script).expect("a file of ours");
        std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
    }

    /// Sends a message to a server; gives status and answer.
    pub async fn acp(&self, server: &str, agent: Option<&str>, message: Value) -> (u16, Value) {
        let query = agent.map(|agent| format!("?agent={agent}")).unwrap_or_default();
        self.post(&format!("/v1/acp/{server}{query}"), message).await
    }

    /// A session with the built-in agent.
    ///
    /// # Panics
    ///
    /// If it is not made.
    pub async fn session(&self, server: &str) -> String {
        let opened = json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": { "protocolVersion": 1 } });
        let (status, answer) = self.acp(server, Some("mock"), opened).await;
        assert_eq!(status, 200, "{answer}");
        let new = json!({ "jsonrpc": "2.0", "id": 1, "method": "session/new", "params": { "cwd": self.path("") } });
        let (status, answer) = self.acp(server, None, new).await;
        assert_eq!(status, 200, "{answer}");
        answer["result"]["sessionId"].as_str().expect("a session").to_owned()
    }

    /// A prompt; gives the answer.
    pub async fn prompt(&self, server: &str, session: &str, text: &str) -> (u16, Value) {
        let prompt = json!([{ "type": "text", "text": text }]);
        let params = json!({ "sessionId": session, "prompt": prompt });
        let message =
            json!({ "jsonrpc": "2.0", "id": "p", "method": "session/prompt", "params": params });
        self.acp(server, None, message).await
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
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

fn start(home: &Path, port: u16, flags: &[String], variables: &[(String, String)]) -> Child {
    let log = std::fs::File::options().create(true).append(true).open(home.join("server.log"));
    let mut command = Command::new(program());
    command
        .args(["server", "--port", &port.to_string(), "--log", "debug"])
        .args(flags)
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("HOME", home)
        .env("SANDBOX_AGENT_TOKEN", TOKEN)
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log.expect("a log file"))
        .kill_on_drop(true);
    command.spawn().expect("the program starts")
}

/// A port that nobody listens on.
///
/// # Panics
///
/// If there is none.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").port()
}

/// Reads server-sent events as they come.
#[derive(Debug)]
pub struct Events {
    response: reqwest::Response,
    text: String,
}

/// One event.
#[derive(Debug, Clone)]
pub struct Event {
    pub name: String,
    pub id: Option<u64>,
    pub data: Value,
}

impl Events {
    /// # Panics
    ///
    /// If the answer is no stream.
    pub async fn open(request: RequestBuilder) -> Self {
        let response =
            request.header("accept", "text/event-stream").send().await.expect("an answer");
        assert_eq!(response.status().as_u16(), 200);
        Self { response, text: String::new() }
    }

    /// The next event; `None` at the end.
    ///
    /// # Panics
    ///
    /// If none comes within twenty seconds.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(end) = self.text.find("\n\n") {
                let event = parse(&self.text[..end]);
                self.text.drain(..end + 2);
                match event {
                    Some(event) => return Some(event),
                    None => continue,
                }
            }
            let chunk = tokio::time::timeout(Duration::from_secs(20), self.response.chunk()).await;
            match chunk.expect("an event in time") {
                Ok(Some(bytes)) => self.text.push_str(&String::from_utf8_lossy(&bytes)),
                Ok(None) | Err(_) => return None,
            }
        }
    }

    /// Events up to one that fits, which is the last.
    ///
    /// # Panics
    ///
    /// If the stream ends before.
    pub async fn until(&mut self, fits: impl Fn(&Event) -> bool) -> Vec<Event> {
        let mut all = Vec::new();
        loop {
            let event = self.next().await.expect("the stream goes on");
            let done = fits(&event);
            all.push(event);
            if done {
                return all;
            }
        }
    }
}

fn parse(frame: &str) -> Option<Event> {
    let member = |name: &str| {
        frame
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim_start))
    };
    let data = member("data")?;
    Some(Event {
        name: member("event").unwrap_or("message").to_owned(),
        id: member("id").and_then(|id| id.parse().ok()),
        data: serde_json::from_str(data).unwrap_or(Value::Null),
    })
}

/// Whether a process still runs: a zombie does not.
pub fn is_alive(pid: i64) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}
