//! Checklist F09: an agent's packages that are not what they should be, or not to be had.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::extract::{Path, State};
use axum::routing::get;
use e2e::sandbox::{Events, Sandbox};
use reqwest::Method;
use serde_json::{Value, json};

/// A registry that has every package, each with something else in it.
struct Registry {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
    _tasks: tokio::task::JoinSet<std::io::Result<()>>,
}

impl Registry {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let state = (address, Arc::clone(&asked));
        let routes = Router::new().route("/{*path}", get(Self::serve)).with_state(state);
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async move { axum::serve(listener, routes).await });
        Self { address, asked, _tasks: tasks }
    }

    #[expect(clippy::unused_async, reason = "a handler is")]
    async fn serve(
        State((address, asked)): State<(SocketAddr, Arc<AtomicUsize>)>,
        Path(path): Path<String>,
    ) -> axum::response::Response {
        use axum::response::IntoResponse as _;
        asked.fetch_add(1, Ordering::Relaxed);
        if path.contains("/-/") {
            return b"not what it should be".to_vec().into_response();
        }
        let lock: Value =
            serde_json::from_str(include_str!("../../../../agent/src/agents/locks/cursor.json"))
                .unwrap();
        let version = &lock["packages"][format!("node_modules/{path}")]["version"];
        let version = version.as_str().unwrap_or("1.0.0");
        let tarball = format!("http://{address}/{path}/-/x-{version}.tgz");
        let about = json!({ "name": path, "version": version, "dist": { "tarball": tarball } });
        axum::Json(json!({ "name": path, "dist-tags": { "latest": version }, "versions": { version: about } }))
            .into_response()
    }
}

#[tokio::test]
async fn f09_a_package_whose_hash_is_another_is_refused_and_leaves_nothing() {
    let registry = Registry::start().await;
    let url = format!("http://{}", registry.address);
    let sandbox = Sandbox::with(&["--npm-registry", &url], &[]).await;
    // Two at once share one install.
    let ask = || sandbox.post("/v1/agents/cursor/install", json!({}));
    let ((_, problem), (_, other)) = tokio::join!(ask(), ask());
    // The body says so even if the head went out before.
    assert_eq!((&problem["status"], &other["status"]), (&json!(500), &json!(500)), "{problem}");
    assert_eq!(problem["type"], "urn:sandbox-agent:error:install_failed");
    assert!(problem["details"]["stderr"].as_str().unwrap().contains("EINTEGRITY"), "{problem}");
    assert!(registry.asked.load(Ordering::Relaxed) > 0);
    let (_, info) = sandbox.ask(sandbox.get("/v1/agents/cursor")).await;
    assert_eq!(info["installed"], false);
    let directory = sandbox.path(".local/share/sandbox-agent/bin/agent_processes");
    let left: Vec<String> = std::fs::read_dir(directory)
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| !name.starts_with(".lock"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    // As events, too.
    let request =
        sandbox.request(Method::POST, "/v1/agents/cursor/install?stream=1").json(&json!({}));
    let mut events = Events::open(request).await;
    let all = events.until(|event| event.name != "progress").await;
    assert_eq!((all[0].name.as_str(), all.last().unwrap().name.as_str()), ("progress", "error"));
    // A message to it says the same, and leaves no server that could never speak.
    let message = json!({ "id": 0, "method": "initialize", "params": {} });
    let (_, refused) = sandbox.acp("c", Some("cursor"), message).await;
    assert!(refused.to_string().contains("install_failed"), "{refused}");
}

#[tokio::test]
async fn f09_without_a_registry_what_is_there_is_used_and_what_is_not_is_told() {
    let sandbox = Sandbox::with(&["--npm-registry", "http://127.0.0.1:1"], &[]).await;
    let (_, problem) = sandbox.post("/v1/agents/cursor/install", json!({})).await;
    assert_eq!(problem["status"], 500, "{problem}");
    let (status, done) = sandbox.post("/v1/agents/mock/install", json!({})).await;
    assert_eq!((status, done["already_installed"].as_bool()), (200, Some(true)), "{done}");
    assert_eq!(done["alreadyInstalled"], true);
    sandbox.put_agent("cursor", "#!/bin/sh\n");
    let (status, done) = sandbox.post("/v1/agents/cursor/install", json!({})).await;
    assert_eq!(
        (status, done),
        (200, json!({ "already_installed": true, "alreadyInstalled": true, "artifacts": [] }))
    );
    for wrong in ["1.0.0 || *", "../x", "", "latest; rm"] {
        let body = json!({ "agentProcessVersion": wrong });
        let (status, problem) = sandbox.post("/v1/agents/pi/install", body).await;
        assert_eq!(status, 400, "{problem}");
    }
}

#[tokio::test]
async fn a_server_that_installs_nothing_by_itself_says_so() {
    let sandbox = Sandbox::with(&["--require-preinstall"], &[]).await;
    let message = json!({ "id": 0, "method": "initialize", "params": {} });
    let (status, problem) = sandbox.acp("c", Some("codex"), message).await;
    assert_eq!(
        (status, problem["type"].as_str()),
        (404, Some("urn:sandbox-agent:error:agent_not_installed"))
    );
}
