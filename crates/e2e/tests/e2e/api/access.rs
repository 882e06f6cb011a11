//! Who may do what: every documented route × {no key, wrong key, another tenant, an agent's token}.

use e2e::house::{As, House, answer};
use reqwest::Method;
use serde_json::{Value, json};

const PUBLIC: [&str; 2] = ["/healthz", "/v1/stats"];

#[tokio::test]
async fn every_documented_route_wants_a_key() {
    let house = House::new().await;
    let (_, document) = house.get(As("root-key"), "/openapi.json").await;
    let mut routes = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            let method: Method = method.to_uppercase().parse().unwrap();
            let url = format!("{}{}", house.api, path.replace(['{', '}'], ""));
            for key in [None, Some("wrong-key"), Some("acme-key@acme:operator")] {
                let mut request = house.client.request(method.clone(), &url);
                if let Some(key) = key {
                    request = request.bearer_auth(key);
                }
                let (status, body) = answer(request.send().await.unwrap()).await;
                let public = PUBLIC.contains(&path.as_str());
                assert_eq!(status == 401, !public, "{method} {path} {key:?}: {status} {body}");
                if !public {
                    let said = if key.is_none() { "missing api key" } else { "invalid api key" };
                    assert_eq!(body, json!({ "error": said }));
                }
            }
            routes += 1;
        }
    }
    assert!(routes >= 20, "{routes} routes");
}

#[tokio::test]
async fn an_unknown_path_wants_a_key_too() {
    let house = House::new().await;
    let response = house.client.get(format!("{}/v1/nothing", house.api)).send().await.unwrap();
    assert_eq!(response.status(), 401);
    let (status, body) = house.get(As("acme-key"), "/v1/nothing").await;
    assert_eq!((status, body), (404, json!({ "error": "not found: no such route" })));
}

#[tokio::test]
async fn a_bare_token_is_a_token() {
    let house = House::new().await;
    let request =
        house.client.get(format!("{}/v1/whoami", house.api)).header("authorization", "acme-key");
    let (status, body) = answer(request.send().await.unwrap()).await;
    assert_eq!((status, body), (200, json!({ "tenant": "acme", "role": "operator" })));
}

#[tokio::test]
async fn another_tenants_rows_do_not_exist() {
    let house = House::new().await;
    let session = house.session("openai").await;
    let id = session["id"].as_str().unwrap();
    let ran = house.sh("true").await;
    assert_eq!(ran["exit_code"], 0);
    let (_, jails) = house.get(As("acme-key"), "/v1/jails").await;
    let jail = jails["rows"][0]["id"].as_i64().unwrap();
    for (method, path, body) in [
        (Method::GET, format!("/v1/sessions/{id}"), None),
        (Method::DELETE, format!("/v1/sessions/{id}"), None),
        (Method::POST, format!("/v1/sessions/{id}/exec"), Some(json!({ "cmd": "true" }))),
        (Method::POST, format!("/v1/sessions/{id}/runs"), Some(json!({ "code": "1" }))),
        (Method::GET, format!("/v1/jails/{jail}"), None),
        (Method::DELETE, "/v1/credentials/openai".to_owned(), None),
        (Method::DELETE, "/v1/credentials/openai?tenant=acme".to_owned(), None),
        (Method::GET, "/v1/credentials?tenant=acme".to_owned(), None),
        (Method::GET, "/v1/sessions?tenant=acme".to_owned(), None),
        (Method::GET, "/v1/jails?tenant=acme".to_owned(), None),
        (Method::GET, "/v1/audit?tenant=acme".to_owned(), None),
    ] {
        let mut request = house.request(As("globex-key"), method.clone(), &path);
        if let Some(body) = &body {
            request = request.json(body);
        }
        let (status, answer) = answer(request.send().await.unwrap()).await;
        assert_eq!(status, 404, "{method} {path}: {answer}");
    }
    for path in ["/v1/sessions", "/v1/credentials"] {
        assert_eq!(house.get(As("globex-key"), path).await.1, json!([]));
    }
    assert_eq!(house.get(As("globex-key"), "/v1/jails").await.1["total"], 0);
    // It is still there.
    assert_eq!(house.get(As("acme-key"), &format!("/v1/sessions/{id}")).await.0, 200);
    assert_eq!(house.get(As("root-key"), &format!("/v1/sessions/{id}")).await.0, 200);
    assert_eq!(house.get(As("root-key"), "/v1/sessions?tenant=globex").await.1, json!([]));
}

/// What every caller may ask, whoever they are: it is nobody's.
const NOBODYS: [&str; 7] = [
    "/healthz",
    "/v1/stats",
    "/openapi.json",
    "/v1/whoami",
    "/v1/config",
    "/v1/flavors",
    "/v1/images",
];

/// Something of one tenant for every kind of id.
struct Things {
    session: String,
    workspace: String,
    /// A workspace that an agent lives in, and its token.
    inhabited: String,
    token: String,
    snapshot: String,
    jail: String,
    key: String,
    /// Where a backup may go.
    backup: std::path::PathBuf,
}

impl Things {
    async fn new(house: &House) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("{value}")).to_owned();
        let session = text(&house.session("openai").await["id"]);
        let made = house.workspace(json!({})).await;
        let snapshot = text(&house.snapshot(&made, "theirs").await["id"]);
        house.sh("true").await;
        let (_, jails) = house.get(As("acme-key"), "/v1/jails").await;
        let inhabited = text(&house.workspace(json!({})).await["id"]);
        let path = format!("/v1/workspaces/{inhabited}/agent");
        let (status, agent) = house.post(As("acme-key"), &path, json!({})).await;
        assert_eq!(status, 201, "{agent}");
        let body = json!({ "role": "operator", "tenant": "acme" });
        let (_, key) = house.post(As("root-key"), "/v1/keys", body).await;
        Self {
            session,
            workspace: text(&made["id"]),
            inhabited,
            token: text(&agent["token"]),
            snapshot,
            jail: jails["rows"][0]["id"].to_string(),
            key: text(&key["id"]),
            backup: house.state.path().join("backup"),
        }
    }

    /// A documented path, filled in, with the tenant as a parameter where there is one.
    fn url(&self, path: &str, operation: &Value) -> String {
        let id = match path.split('/').nth(2) {
            Some("sessions") => &self.session,
            Some("workspaces") if path.contains("/agent") => &self.inhabited,
            Some("workspaces") => &self.workspace,
            Some("snapshots") => &self.snapshot,
            Some("jails") => &self.jail,
            _ => &self.key,
        };
        let filled = path.replace("{id}", id).replace("{service}", "openai");
        let filled = filled.replace("/agent/{path}", "/agent/v1/health");
        let filled = filled.replace("{port}", "8080").replace("{path}", "x");
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        let mut query: Vec<String> = Vec::new();
        for parameter in parameters.filter(|parameter| parameter["in"] == "query") {
            match parameter["name"].as_str() {
                Some("tenant") => query.push("tenant=acme".to_owned()),
                Some("exec") => query.push("exec=%7B%22cmd%22%3A%22true%22%7D".to_owned()),
                Some("against") => query.push(format!("against={}", self.snapshot)),
                _ => {}
            }
        }
        if query.is_empty() { filled } else { format!("{filled}?{}", query.join("&")) }
    }

    /// A body that is right in every other way.
    fn body(&self, method: &Method, path: &str) -> Value {
        match path {
            "/v1/credentials" => json!({ "service": "openai", "secret": "sk-x" }),
            "/v1/sessions" => json!({ "services": ["openai"] }),
            "/v1/runs" | "/v1/runs/stream" => json!({ "code": "true", "language": "bash" }),
            "/v1/sessions/{id}/runs" => json!({ "code": "true", "language": "bash" }),
            "/v1/runs/fork" => json!({
                "parent_code": "true", "child_code": "true", "language": "bash", "fork_after_ms": 0
            }),
            "/v1/workspaces/from-snapshot" => {
                json!({ "snapshot_id": self.snapshot, "parent_workspace_id": self.workspace })
            }
            "/v1/workspaces/{id}/restore" => json!({ "snapshot_id": self.snapshot }),
            "/v1/workspaces/{id}/fork" => json!({ "count": 1 }),
            "/v1/jails/{id}/network" => json!({ "mode": "allowlist", "domains": ["a.test"] }),
            "/v1/workspaces/{id}/agent" if method == Method::PATCH => json!({ "state": "paused" }),
            "/v1/workspaces/{id}/agent" => json!({}),
            "/v1/keys" => json!({ "role": "admin" }),
            "/v1/backup" => json!({ "directory": self.backup }),
            _ => json!({ "cmd": "true" }),
        }
    }
}

/// Every documented operation, those that remove something last.
fn operations(document: &Value) -> Vec<(Method, String, Value)> {
    let mut all = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let method: Method = method.to_uppercase().parse().unwrap();
            all.push((method, path.clone(), operation.clone()));
        }
    }
    all.sort_by_key(|(method, _, _)| *method == Method::DELETE);
    all
}

#[tokio::test]
async fn every_documented_operation_is_for_its_tenant_and_for_admins() {
    let house = House::new().await;
    let (_, document) = house.get(As("root-key"), "/openapi.json").await;
    let operations = operations(&document);
    let things = Things::new(&house).await;
    let ask = async |who: &str, method: &Method, path: &str, operation: &Value| {
        let mut request = house.request(As(who), method.clone(), &things.url(path, operation));
        if path.ends_with("/attach") {
            request = request.header("content-type", "application/octet-stream").body("");
        } else if operation.get("requestBody").is_some() {
            request = request.json(&things.body(method, path));
        }
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        // To its end: a stream that is left behind still runs.
        response.bytes().await.unwrap();
        status
    };
    for (method, path, operation) in &operations {
        let status = ask("globex-key", method, path, operation).await;
        let wanted = if NOBODYS.contains(&path.as_str()) { 200 } else { 404 };
        assert_eq!(status, wanted, "another tenant: {method} {path}");
    }
    // Nothing of it was touched.
    for path in [
        format!("/v1/sessions/{}", things.session),
        format!("/v1/workspaces/{}", things.workspace),
        format!("/v1/workspaces/{}/agent", things.inhabited),
        format!("/v1/snapshots/{}", things.snapshot),
        format!("/v1/jails/{}", things.jail),
    ] {
        assert_eq!(house.get(As("acme-key"), &path).await.0, 200, "{path}");
    }
    assert_eq!(house.get(As("acme-key"), "/v1/sessions").await.1.as_array().unwrap().len(), 1);
    assert_eq!(house.get(As("acme-key"), "/v1/workspaces").await.1["total"], 2);
    for (method, path, operation) in &operations {
        let status = ask("root-key", method, path, operation).await;
        // Nothing listens in the workspace; the jail has ended; there is an agent already.
        let wanted: &[u16] = match path.as_str() {
            "/v1/workspaces/{id}/ports/{port}/{path}" | "/v1/jails/{id}/network" => &[409],
            "/v1/workspaces/{id}/agent" if method == Method::POST => &[409],
            _ => &[200, 201, 204],
        };
        assert!(wanted.contains(&status), "an admin: {method} {path}: {status}");
    }
}

#[tokio::test]
async fn an_agents_token_opens_its_agent_and_nothing_else() {
    let house = House::new().await;
    let (_, document) = house.get(As("root-key"), "/openapi.json").await;
    let things = Things::new(&house).await;
    let forged = format!("agt_{}", "0".repeat(64));
    let used = things.token.replace("agt_", "agt_0");
    for (method, path, operation) in operations(&document) {
        if PUBLIC.contains(&path.as_str()) {
            continue;
        }
        let url = things.url(&path, &operation);
        for token in [&things.token, &forged, &used] {
            let mut request = house.request(As(token), method.clone(), &url);
            if operation.get("requestBody").is_some() {
                request = request.json(&things.body(&method, &path));
            }
            let status = request.send().await.unwrap().status();
            let its = *token == things.token && path.ends_with("/agent/{path}");
            assert_eq!(status, if its { 200 } else { 401 }, "{method} {path} {token}");
        }
    }
    let elsewhere = format!("/v1/workspaces/{}/agent/v1/health", things.workspace);
    assert_eq!(house.get(As(&things.token), &elsewhere).await.0, 404);
}

#[tokio::test]
async fn operators_are_not_told_addresses_and_paths() {
    let house = House::new().await;
    let (_, for_admin) = house.get(As("root-key"), "/v1/config").await;
    let (_, for_operator) = house.get(As("acme-key"), "/v1/config").await;
    assert!(for_admin["proxy"]["bind_addr"].is_string());
    assert!(for_admin["persistence"]["state_dir"].is_string());
    for (part, field) in
        [("proxy", "bind_addr"), ("control_plane", "bind_addr"), ("persistence", "state_dir")]
    {
        assert_eq!(for_operator[part].get(field), None, "{part}.{field}");
    }
    assert_eq!(
        for_operator["exec"],
        json!({ "default_memory_mb": 512, "default_timeout_secs": 300, "max_concurrent": 16 })
    );
    let services: Vec<&str> = for_operator["proxy"]["providers"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|provider| provider["service_id"].as_str())
        .collect();
    assert_eq!(services, ["openai", "anthropic", "github", "stripe"]);
    assert_eq!(house.get(As("acme-key"), "/metrics").await.0, 404);
}

#[tokio::test]
async fn every_answer_has_a_request_id_and_the_clients_own_is_kept() {
    let house = House::new().await;
    let response = house.request(As("acme-key"), Method::GET, "/v1/whoami").send().await.unwrap();
    assert!(!response.headers()["x-request-id"].is_empty());
    let request =
        house.request(As("acme-key"), Method::GET, "/nothing").header("x-request-id", "mine-1");
    assert_eq!(request.send().await.unwrap().headers()["x-request-id"], "mine-1");
}

#[tokio::test]
async fn no_web_page_may_call_unless_it_is_named() {
    let house = House::with(&["--cors-origin", "https://console.example"]).await;
    for (origin, allowed) in [("https://console.example", true), ("https://evil.example", false)] {
        let request =
            house.request(As("acme-key"), Method::GET, "/v1/whoami").header("origin", origin);
        let response = request.send().await.unwrap();
        assert_eq!(
            response.headers().contains_key("access-control-allow-origin"),
            allowed,
            "{origin}"
        );
    }
}

#[tokio::test]
async fn wrong_requests_are_told_what_is_wrong() {
    let house = House::new().await;
    let long = "x".repeat(2 << 20);
    for (path, body, status, says) in [
        ("/v1/sessions", json!({}), 400, "services must contain at least one entry"),
        ("/v1/sessions", json!({ "services": "openai" }), 400, "services: invalid type"),
        (
            "/v1/sessions",
            json!({ "services": ["openai"] }),
            400,
            "no credential configured for service openai (tenant acme)",
        ),
        ("/v1/sessions", json!({ "services": ["nosuch"] }), 400, "unknown service nosuch"),
        ("/v1/credentials", json!({ "service": "openai" }), 400, "missing field `secret`"),
        (
            "/v1/credentials",
            json!({ "service": "openai", "secret": " " }),
            400,
            "secret must be non-empty",
        ),
        ("/v1/credentials", json!({ "service": "openai", "secret": "a\nb" }), 400, "one line"),
        ("/v1/runs", json!({}), 400, "missing field `code`"),
        (
            "/v1/runs",
            json!({ "code": "1", "language": "cobol" }),
            400,
            "unsupported language: cobol",
        ),
        ("/v1/runs", json!({ "code": "1", "memory_mb": 0 }), 400, "memory_mb must be at least 1"),
        ("/v1/runs", json!({ "code": "1", "memory_mb": -1 }), 400, "memory_mb: invalid value"),
        (
            "/v1/runs",
            json!({ "code": "1", "timeout_secs": 1.5 }),
            400,
            "timeout_secs: invalid type",
        ),
        ("/v1/runs", json!({ "code": "1", "seccomp": "off" }), 400, "seccomp: unknown variant"),
        (
            "/v1/runs",
            json!({ "code": "1", "network": { "mode": "host" } }),
            400,
            "unknown variant `host`",
        ),
        (
            "/v1/runs",
            json!({ "code": "1", "network": { "mode": "allowlist", "domains": [] } }),
            400,
            "at least one domain",
        ),
        (
            "/v1/runs",
            json!({ "code": "1", "network": { "mode": "allowlist", "domains": ["http://x"] } }),
            400,
            "network.domains[0]: invalid domain",
        ),
        (
            "/v1/runs",
            json!({ "code": "1", "flavors": ["nosuch"] }),
            400,
            "unknown flavor: \"nosuch\"",
        ),
        (
            "/v1/runs",
            json!({ "code": "1", "session_id": "sess_nosuch" }),
            404,
            "session sess_nosuch",
        ),
        (
            "/v1/runs",
            json!({ "code": "1", "git": { "repo": "http://example.com/x" } }),
            400,
            "git.repo must be https://",
        ),
        ("/v1/runs", json!({ "code": long }), 413, "longer than"),
        ("/v1/runs", json!([]), 400, "an object is expected"),
    ] {
        let (got, answer) = house.post(As("acme-key"), path, body.clone()).await;
        let text = answer["error"].as_str().unwrap_or_default().to_owned();
        assert!(
            got == status && text.contains(says),
            "{path} {}: {got} {answer}",
            body.to_string().chars().take(90).collect::<String>()
        );
    }
}

#[tokio::test]
async fn bodies_that_are_not_json_are_refused_by_kind() {
    let house = House::new().await;
    let send = async |kind: Option<&str>, body: &'static str| {
        let mut request = house.request(As("acme-key"), Method::POST, "/v1/runs").body(body);
        if let Some(kind) = kind {
            request = request.header("content-type", kind);
        }
        answer(request.send().await.unwrap()).await
    };
    assert_eq!(send(None, "{}").await.0, 415);
    assert_eq!(send(Some("text/plain"), "{}").await.0, 415);
    assert_eq!(send(Some("application/json"), "").await.0, 400);
    assert_eq!(send(Some("application/json"), "{").await.0, 400);
    let response = house.request(As("acme-key"), Method::PUT, "/v1/runs").send().await.unwrap();
    assert_eq!(
        (response.status().as_u16(), response.headers()["allow"].to_str().unwrap()),
        (405, "POST")
    );
    for path in ["/v1/jails?limit=abc", "/v1/jails?offset=-1", "/v1/audit?limit=x", "/v1/jails/x"] {
        let (status, answer) = house.get(As("acme-key"), path).await;
        assert_eq!(status, 400, "{path}: {answer}");
        assert!(
            matches!(&answer["error"], Value::String(text) if text.starts_with("bad request: "))
        );
    }
}
