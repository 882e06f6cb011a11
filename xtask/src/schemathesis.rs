//! The OpenAPI document against the real server: thousands of requests made from the one, sent to the other.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::sandbox::Sandbox;
use crate::{command, run, say, target};

/// As published.
const PACKAGE: &str = "schemathesis==4.32.5";

/// What must hold of every answer.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
response_headers_conformance,response_schema_conformance,allow_header_conformance,ignored_auth,use_after_free";

/// A server, ended with this.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // One that has ended already is what we want.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Makes requests of the control plane's document, and judges the answers.
pub(crate) fn control_plane() -> anyhow::Result<()> {
    let state = home().join("state");
    if state.exists() {
        std::fs::remove_dir_all(&state)?;
    }
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let api = format!("127.0.0.1:{port}");
    let server = command(target().join("debug/agentjail"))
        .args(["serve", "--ctl-addr", &api, "--proxy-addr", "127.0.0.1:0"])
        .args(["--proxy-base-url", "http://127.0.0.1:1", "--api-key", "r@root:admin"])
        .args(["--log", "warn", "--state-dir"])
        .arg(&state)
        .spawn()
        .context("could not start the server")?;
    let _server = Server(server);
    wait_for(&api)?;
    judge(&format!("http://{api}"), "r", &[])
}

/// The same of the sandbox agent's. It may do what it likes below a directory of its own.
pub(crate) fn sandbox_agent() -> anyhow::Result<()> {
    let root = home().join("root");
    if root.exists() {
        std::fs::remove_dir_all(&root)?;
    }
    std::fs::create_dir_all(&root)?;
    let flags = ["--require-preinstall", "--npm-registry", "http://127.0.0.1:1", "--root"];
    let root = root.display().to_string();
    let server = Sandbox::start(&[&flags[..], &[&root]].concat())?;
    // Operations that end the server, streams that have no end, archives (it cannot write any), and installs: what is
    // out of reach is a 500 there, as the published clients expect.
    let left_out = [
        "--exclude-path",
        "/v1/agents/{id}/install",
        "--exclude-path",
        "/v1/fs/upload-batch",
        "--exclude-path",
        "/v1/sandbox/kill",
        "--exclude-path",
        "/v1/sandbox",
        "--exclude-path",
        "/v1/fs/watch",
        "--exclude-operation-id",
        "acp_stream",
    ];
    judge(&server.url(), Sandbox::TOKEN, &left_out)
}

fn home() -> PathBuf {
    target().join("schemathesis")
}

fn judge(url: &str, token: &str, more: &[&str]) -> anyhow::Result<()> {
    let home = home();
    let program = home.join("bin/schemathesis");
    if !program.exists() {
        say("installing schemathesis");
        run(command("python3").args(["-m", "venv"]).arg(&home))?;
        run(command(home.join("bin/pip")).args([
            "install",
            "--quiet",
            "--disable-pip-version-check",
            PACKAGE,
        ]))?;
    }
    let header = format!("Authorization: Bearer {token}");
    run(command(&program)
        .args(["run", &format!("{url}/openapi.json"), "-H", &header])
        .args(["--phases", "examples,coverage,fuzzing,stateful", "-n", "40", "-w", "1"])
        .args(["--generation-deterministic", "--no-shrink", "--continue-on-failure"])
        .args(["--request-timeout", "40", "--suppress-health-check", "all", "--no-color"])
        .args(["--checks", CHECKS])
        .args(more)
        // It keeps notes where it stands.
        .current_dir(&home))
}

fn wait_for(api: &str) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    while std::net::TcpStream::connect(api).is_err() {
        if Instant::now() > deadline {
            bail!("the server does not answer on {api}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
