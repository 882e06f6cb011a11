//! Servers for tools and skills.

use std::os::unix::fs::PermissionsExt as _;

use e2e::sandbox::Sandbox;
use reqwest::Method;
use serde_json::{Value, json};

#[tokio::test]
async fn sixty_who_write_at_once_lose_nothing_and_no_secret_is_readable_by_others() {
    let sandbox = Sandbox::new().await;
    let writes = (0..60).map(|number| {
        let path = format!("/v1/config/mcp?directory=work&mcpName=server{number}");
        let body =
            json!({ "type": "local", "command": "run", "env": { "KEY": "secret" }, "own": number });
        sandbox.ask(sandbox.request(Method::PUT, &path).json(&body))
    });
    for (status, problem) in futures_util::future::join_all(writes).await {
        assert_eq!(status, 204, "{problem}");
    }
    let file = sandbox.path("work/.sandbox-agent/config/mcp.json");
    let all: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!(all.as_object().unwrap().len(), 60);
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    // What is not known of it stays.
    let (_, one) = sandbox.ask(sandbox.get("/v1/config/mcp?directory=work&mcpName=server7")).await;
    assert_eq!(one["own"], 7);
    let gone = sandbox.request(Method::DELETE, "/v1/config/mcp?directory=work&mcpName=server7");
    assert_eq!(sandbox.ask(gone).await.0, 204);
    let (status, problem) =
        sandbox.ask(sandbox.get("/v1/config/mcp?directory=work&mcp_name=server7")).await;
    assert_eq!((status, problem["sessionId"].as_str()), (404, Some("mcp:server7")), "{problem}");
}

#[tokio::test]
async fn the_python_clients_calls_without_a_query_mean_everything() {
    let sandbox = Sandbox::new().await;
    for (kind, body) in [
        ("mcp", json!({ "servers": { "a": { "type": "remote", "url": "http://x" } } })),
        ("skills", json!({ "sources": [] })),
    ] {
        let path = format!("/v1/config/{kind}");
        assert_eq!(sandbox.ask(sandbox.get(&path)).await, (200, json!({})));
        assert_eq!(sandbox.ask(sandbox.request(Method::PUT, &path).json(&body)).await.0, 204);
        assert_eq!(sandbox.ask(sandbox.get(&path)).await, (200, body));
        assert_eq!(
            sandbox.ask(sandbox.request(Method::DELETE, &format!("/v1/{kind}"))).await.0,
            204
        );
        assert_eq!(sandbox.ask(sandbox.get(&path)).await, (200, json!({})));
    }
    std::fs::write(sandbox.path(".sandbox-agent/config/mcp.json"), "{ corrupt").unwrap();
    let (status, problem) = sandbox.ask(sandbox.get("/v1/config/mcp")).await;
    assert!(status == 400 && problem["detail"].as_str().unwrap().contains("mcp.json"), "{problem}");
}

/// Skills are where the agent looks for them when its session begins.
#[tokio::test]
async fn skills_reach_the_agent() {
    let sandbox = Sandbox::new().await;
    for name in ["brew", "bake"] {
        let directory = sandbox.path(&format!("shelf/{name}"));
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(format!("{directory}/SKILL.md"), name).unwrap();
    }
    let home = sandbox.path("");
    let path = format!("/v1/config/skills?directory={home}&skillName=mine");
    let source = json!({ "sources": [{ "type": "local", "source": "shelf", "skills": ["brew"] }] });
    assert_eq!(sandbox.ask(sandbox.request(Method::PUT, &path).json(&source)).await.0, 204);
    sandbox.put_agent(
        "claude",
        "#!/bin/sh\nread a; echo '{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}'\n\
         read b; echo \"{\\\"jsonrpc\\\":\\\"2.0\\\",\\\"id\\\":2,\\\"result\\\":{\\\"sessionId\\\":\\\"$(cat .claude/skills/brew/SKILL.md)\\\"}}\"\ncat",
    );
    assert_eq!(
        sandbox
            .acp("s", Some("claude"), json!({ "id": 0, "method": "initialize", "params": {} }))
            .await
            .0,
        200
    );
    let new = json!({ "id": 1, "method": "session/new", "params": { "cwd": home } });
    assert_eq!(sandbox.acp("s", None, new).await.1["result"]["sessionId"], "brew");
    assert!(!std::fs::exists(sandbox.path(".claude/skills/bake")).unwrap());
}
