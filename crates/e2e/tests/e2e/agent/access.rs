//! Who is let in.

use e2e::sandbox::{Sandbox, TOKEN};
use reqwest::Method;
use serde_json::{Value, json};

/// Every operation of the document without a token, and with a wrong one (checklist F06).
#[tokio::test]
async fn f06_no_route_is_open_without_the_token() {
    let sandbox = Sandbox::new().await;
    let document: Value =
        serde_json::from_str(include_str!("../../../../../docs/reference/sandbox-agent.json"))
            .unwrap();
    let mut tried = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            let method: Method = method.to_uppercase().parse().unwrap();
            let url = format!("{}{}", sandbox.url, path.replace('{', "x").replace('}', ""));
            for token in [None, Some("wrong"), Some(""), Some(&TOKEN[1..])] {
                let mut request = sandbox.client.request(method.clone(), &url);
                if let Some(token) = token {
                    request = request.bearer_auth(token);
                }
                let status = request.send().await.unwrap().status().as_u16();
                if path.starts_with("/v1") {
                    assert_eq!(status, 401, "{method} {path} {token:?}");
                } else {
                    assert_eq!(status, 200, "{method} {path}");
                }
                tried += 1;
            }
        }
    }
    assert!(tried > 200, "{tried}");
    // Only a WebSocket may carry it in the query.
    let status = async |path: &str| {
        sandbox.client.get(format!("{}{path}", sandbox.url)).send().await.unwrap().status().as_u16()
    };
    assert_eq!(status(&format!("/v1/health?access_token={TOKEN}")).await, 401);
    assert_eq!(status("/v1/nowhere").await, 401);
    assert_eq!(status("/nowhere").await, 404);
}

#[tokio::test]
async fn a_web_page_of_another_origin_is_refused_and_so_is_a_foreign_host() {
    let sandbox = Sandbox::with(&["-O", "https://good.example"], &[]).await;
    let ask = async |origin: Option<&str>, host: Option<&str>| {
        let mut request = sandbox.request(Method::POST, "/v1/fs/mkdir?path=made");
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        if let Some(host) = host {
            request = request.header("host", host);
        }
        let response = request.send().await.unwrap();
        let allowed = response.headers().get("access-control-allow-origin").cloned();
        (response.status().as_u16(), allowed)
    };
    assert_eq!(ask(Some("https://evil.example"), None).await, (403, None));
    assert_eq!(ask(Some("null"), None).await.0, 403);
    assert_eq!(ask(None, Some("evil.example")).await.0, 403);
    assert_eq!(ask(None, Some("localhost.evil.example:80")).await.0, 403);
    assert_eq!(ask(None, Some("[::1]evil.example")).await.0, 403);
    let (status, allowed) = ask(Some("https://good.example"), None).await;
    assert_eq!((status, allowed.unwrap().to_str().unwrap()), (200, "https://good.example"));
    assert_eq!(ask(Some(&sandbox.url), None).await.0, 200);
    assert_eq!(ask(None, Some("localhost:1234")).await.0, 200);
    // A browser asks first; a page of another origin is told nothing.
    let preflight = async |origin: &str| {
        let request =
            sandbox.client.request(Method::OPTIONS, format!("{}/v1/fs/mkdir", sandbox.url));
        let request =
            request.header("origin", origin).header("access-control-request-method", "POST");
        request.send().await.unwrap().headers().contains_key("access-control-allow-origin")
    };
    assert!(preflight("https://good.example").await && !preflight("https://evil.example").await);
    // What used to crash: every origin, and credentials without lists.
    let open = Sandbox::with(&["-O", "*", "-C"], &[]).await;
    let response =
        open.get("/v1/health").header("origin", "https://any.example").send().await.unwrap();
    assert_eq!(response.headers()["access-control-allow-origin"], "https://any.example");
    assert_eq!(response.headers()["access-control-allow-credentials"], "true");
}

#[tokio::test]
async fn no_token_reaches_the_log() {
    let sandbox = Sandbox::new().await;
    sandbox
        .client
        .get(format!("{}/v1/health?access_token={TOKEN}", sandbox.url))
        .send()
        .await
        .unwrap();
    sandbox.get(&format!("/v1/fs/stat?path=/tmp&token={TOKEN}")).send().await.unwrap();
    sandbox.get("/v1/health").send().await.unwrap();
    let log = sandbox.log();
    assert!(log.contains("GET /v1/health 200"), "{log}");
    assert!(!log.contains(TOKEN), "{log}");
    // Nor is it on the command line of anything, or in what a process sees.
    let seen = sandbox.sh("env; cat /proc/*/cmdline 2>/dev/null | tr '\\0' ' '").await;
    assert!(!seen["stdout"].as_str().unwrap().contains(TOKEN));
}

/// Clients give it on the command line, which everybody on the machine can read.
#[tokio::test]
async fn a_token_does_not_stay_on_the_command_line() {
    let home = tempfile::tempdir().unwrap();
    let token = "on-the-command-line-3e1";
    let mut command = tokio::process::Command::new(e2e::sandbox::program());
    command
        .args(["server", "--port", "24688", "--token", token])
        .env_clear()
        .env("HOME", home.path());
    command.env("PATH", "/usr/bin:/bin").stderr(std::process::Stdio::null()).kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let run = json!({ "command": "sh", "args": ["-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"] });
    let url = "http://127.0.0.1:24688";
    e2e::house::eventually("it is up", async || client.get(url).send().await.is_ok()).await;
    let request = client.post(format!("{url}/v1/processes/run")).bearer_auth(token).json(&run);
    let (status, result) = e2e::house::answer(request.send().await.unwrap()).await;
    assert_eq!(status, 200, "{result}");
    let seen = result["stdout"].as_str().unwrap();
    assert!(seen.contains("--port 24688") && !seen.contains(token), "{seen}");
    child.start_kill().unwrap();
    drop(child.wait().await);
}

#[tokio::test]
async fn a_server_without_a_token_makes_one_and_tells_it_once() {
    let home = tempfile::tempdir().unwrap();
    let mut command = tokio::process::Command::new(e2e::sandbox::program());
    command.args(["server", "--port", "0"]).env_clear().env("HOME", home.path());
    command.env("PATH", "/usr/bin:/bin").stderr(std::process::Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let mut lines = tokio::io::BufReader::new(child.stderr.take().unwrap());
    let (mut text, mut line) = (String::new(), String::new());
    while !text.contains("#token=") {
        line.clear();
        assert!(
            tokio::io::AsyncBufReadExt::read_line(&mut lines, &mut line).await.unwrap() > 0,
            "{text}"
        );
        text.push_str(&line);
    }
    let token = text.rsplit_once("#token=").unwrap().1.trim();
    let url = text.split("http://").nth(1).unwrap().split([',', '/']).next().unwrap();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let status =
        async |request: reqwest::RequestBuilder| request.send().await.unwrap().status().as_u16();
    let health = format!("http://{url}/v1/health");
    assert_eq!(status(client.get(&health)).await, 401);
    assert_eq!(status(client.get(&health).bearer_auth(token)).await, 200);
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(child.id().unwrap().cast_signed()).unwrap(),
        rustix::process::Signal::TERM,
    )
    .unwrap();
    assert_eq!(child.wait().await.unwrap().code(), Some(0));
    // An empty token would let everybody in.
    let empty = tokio::process::Command::new(e2e::sandbox::program())
        .args(["server", "--port", "0", "--token", ""])
        .output();
    let empty = empty.await.unwrap();
    assert!(!empty.status.success());
    assert!(String::from_utf8_lossy(&empty.stderr).contains("--no-token"));
}

/// The contract's problem document, whatever is wrong with a request.
#[tokio::test]
async fn every_refusal_is_a_problem_document() {
    let sandbox = Sandbox::new().await;
    let cases: Vec<(reqwest::RequestBuilder, u16, &str)> = vec![
        (sandbox.get("/v1/nowhere"), 404, "invalid_request"),
        (sandbox.request(Method::PUT, "/v1/health"), 405, "invalid_request"),
        (sandbox.get("/v1/fs/stat"), 400, "invalid_request"),
        (sandbox.get("/v1/fs/entries?limit=many"), 400, "invalid_request"),
        (sandbox.get("/v1/fs/file?path=missing"), 400, "invalid_request"),
        (sandbox.get("/v1/processes/proc_99"), 404, "not_found"),
        (sandbox.get("/v1/processes/proc_01/logs"), 404, "not_found"),
        (sandbox.get("/v1/processes?owner=nobody"), 400, "invalid_request"),
        (sandbox.get("/v1/agents/nobody"), 400, "unsupported_agent"),
        (sandbox.get("/v1/sessions/nothing"), 404, "session_not_found"),
        (sandbox.get("/v1/acp/x").header("accept", "image/png"), 406, "not_acceptable"),
        (sandbox.get("/v1/acp/x").header("last-event-id", "-1"), 400, "invalid_request"),
        (
            sandbox.request(Method::POST, "/v1/processes/run").body("{}"),
            415,
            "unsupported_media_type",
        ),
        (
            sandbox.request(Method::POST, "/v1/processes/run").json(&json!({})),
            400,
            "invalid_request",
        ),
        (
            sandbox.request(Method::POST, "/v1/processes/run").json(&json!([1])),
            400,
            "invalid_request",
        ),
        (
            sandbox.request(Method::POST, "/v1/acp/x").json(&json!({ "id": 1, "method": "m" })),
            400,
            "invalid_request",
        ),
        (
            sandbox.request(Method::POST, "/v1/acp/x?agent=nobody").json(&json!({})),
            400,
            "unsupported_agent",
        ),
        (
            sandbox.request(Method::POST, "/v1/acp/x?agent=mock").json(&json!([1])),
            400,
            "invalid_request",
        ),
        (
            sandbox.request(Method::POST, "/v1/acp/x?agent=mock").body("{}"),
            415,
            "unsupported_media_type",
        ),
        (
            sandbox.request(Method::POST, "/v1/desktop/start").json(&json!({})),
            501,
            "mode_not_supported",
        ),
        (sandbox.get("/v1/config/mcp?directory=x"), 400, "invalid_request"),
        (sandbox.get("/v1/config/mcp?directory=x&mcpName=y"), 404, "session_not_found"),
    ];
    for (request, expected, code) in cases {
        let request = request.build().unwrap();
        let what = format!("{} {}", request.method(), request.url().path());
        let response = sandbox.client.execute(request).await.unwrap();
        let (status, kind) =
            (response.status().as_u16(), response.headers().get("content-type").cloned());
        let body: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
        assert_eq!(status, expected, "{what}: {body}");
        assert_eq!(kind.unwrap(), "application/problem+json", "{what}");
        assert_eq!(body["type"], format!("urn:sandbox-agent:error:{code}"), "{what}");
        assert_eq!(body["status"], expected, "{what}");
        assert!(body["title"].is_string() && body["detail"].is_string(), "{what}: {body}");
    }
    // A bad first message leaves nothing behind.
    let (_, servers) = sandbox.ask(sandbox.get("/v1/acp")).await;
    assert_eq!(servers, json!({ "servers": [] }));
}
