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

/// What lies outside the root is not written to, whatever directory is asked for.
#[tokio::test]
async fn settings_stay_below_the_root() {
    let outside = tempfile::tempdir().unwrap();
    let root = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(outside.path(), root.path().join("way")).unwrap();
    let sandbox = Sandbox::with(&["--root", root.path().to_str().unwrap()], &[]).await;
    for directory in [outside.path().to_str().unwrap(), "/way", "way", "../../../../../../tmp"] {
        let path = format!("/v1/config/mcp?directory={directory}&mcpName=a");
        let body = json!({ "type": "remote", "url": "http://x" });
        let (status, answer) = sandbox.ask(sandbox.request(Method::PUT, &path).json(&body)).await;
        assert!([204, 400, 403].contains(&status), "{directory}: {answer}");
    }
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
}

/// A job can write the file of a session's servers: it must not get a variable out of us that is not its own.
#[tokio::test]
async fn a_server_for_tools_is_told_no_variable_that_agents_have_not() {
    const AGENT: &str = r#"#!/usr/bin/python3
import json, sys
for line in sys.stdin:
    message = json.loads(line)
    open("told." + message["method"].replace("/", "-"), "w").write(line)
    result = {"protocolVersion": 1, "agentCapabilities": {"mcpCapabilities": {"http": True}}, "sessionId": "s"}
    print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
"#;
    let variables = [("AWS_SECRET_ACCESS_KEY", "top-secret"), ("ALLOWED", "may-be-told")];
    let sandbox = Sandbox::with(&["--pass-env", "ALLOWED"], &variables).await;
    sandbox.put_agent("claude", AGENT);
    let servers = json!({
        "stolen": { "type": "remote", "url": "http://x", "bearerTokenEnvVar": "AWS_SECRET_ACCESS_KEY" },
        "own": { "type": "remote", "url": "http://y", "bearerTokenEnvVar": "ALLOWED" },
    });
    std::fs::create_dir_all(sandbox.path(".sandbox-agent/config")).unwrap();
    let file = sandbox.path(".sandbox-agent/config/mcp.json");
    std::fs::write(file, servers.to_string()).unwrap();
    let open = json!({ "id": 0, "method": "initialize", "params": { "protocolVersion": 1 } });
    assert_eq!(sandbox.acp("s", Some("claude"), open).await.0, 200);
    let new = json!({ "id": 1, "method": "session/new", "params": { "cwd": sandbox.path(""), "mcpServers": [] } });
    sandbox.acp("s", None, new).await;
    let told = std::fs::read_to_string(sandbox.path("told.session-new")).unwrap();
    assert!(told.contains("may-be-told") && !told.contains("top-secret"), "{told}");
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
