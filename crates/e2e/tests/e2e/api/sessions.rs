//! `/v1/sessions`

use e2e::house::{As, CANARY, House};
use serde_json::json;

#[tokio::test]
async fn a_session_has_an_environment_of_phantoms() {
    let house = House::new().await;
    let session = house
        .session_with(
            json!({ "services": ["openai", "anthropic", "github", "stripe"], "ttl_secs": 60 }),
        )
        .await;
    let env = session["env"].as_object().unwrap();
    let base =
        |name: &str| env[name].as_str().unwrap().strip_prefix(&house.proxy).unwrap().to_owned();
    assert_eq!(base("OPENAI_BASE_URL"), "/v1/openai/v1");
    assert_eq!(base("ANTHROPIC_BASE_URL"), "/v1/anthropic");
    assert_eq!(base("GITHUB_API_URL"), "/v1/github");
    assert_eq!(base("STRIPE_API_BASE"), "/v1/stripe");
    let keys = ["OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GITHUB_TOKEN", "STRIPE_API_KEY"]
        .map(|name| env[name].as_str().unwrap());
    for (n, key) in keys.iter().enumerate() {
        assert!(key.len() == 68 && key.starts_with("phm_") && !keys[..n].contains(key), "{key}");
    }
    assert!(session["id"].as_str().unwrap().starts_with("sess_"));
    assert!(session["expires_at"].is_string());
    let id = session["id"].as_str().unwrap();
    assert_eq!(house.get(As("acme-key"), &format!("/v1/sessions/{id}")).await.1, session);
    assert_eq!(house.get(As("acme-key"), "/v1/sessions").await.1, json!([session]));
    assert_eq!(house.delete(As("acme-key"), &format!("/v1/sessions/{id}")).await.0, 204);
    assert_eq!(house.get(As("acme-key"), &format!("/v1/sessions/{id}")).await.0, 404);
    assert_eq!(house.delete(As("acme-key"), &format!("/v1/sessions/{id}")).await.0, 404);
}

#[tokio::test]
async fn a_session_that_makes_no_sense_is_refused() {
    let house = House::new().await;
    house.session("openai").await;
    for (body, says) in [
        (json!({ "services": ["openai"], "ttl_secs": 0 }), "ttl_secs"),
        (json!({ "services": ["openai"], "ttl_secs": 2_592_001 }), "ttl_secs"),
        (json!({ "services": ["openai"], "ttl_secs": u64::MAX }), "ttl_secs"),
        (json!({ "services": ["openai", "openai"] }), "named twice"),
        (json!({ "services": ["openai"], "scopes": { "openai": [] } }), "scopes.openai is empty"),
        (json!({ "services": ["openai"], "scopes": { "openai": ["v1/*"] } }), "scopes.openai[0]"),
        (json!({ "services": ["openai"], "scopes": { "github": ["/x"] } }), "not in services"),
        (json!({ "services": ["openai"], "scopes": { "nosuch": ["/x"] } }), "unknown service"),
        (json!({ "services": ["github"] }), "no credential configured"),
    ] {
        let (status, answer) = house.post(As("acme-key"), "/v1/sessions", body.clone()).await;
        assert!(
            status == 400 && answer["error"].as_str().unwrap().contains(says),
            "{body}: {status} {answer}"
        );
    }
}

#[tokio::test]
async fn a_jail_of_a_session_reaches_its_api_and_nothing_else_in_every_mode() {
    let house = House::with(&["--egress-allow-private", "127.0.0.0/8"]).await;
    let session = house.session("openai").await;
    let script = format!(
        "curl -sS -m 5 -H \"authorization: Bearer $OPENAI_API_KEY\" $OPENAI_BASE_URL/models; echo; \
         for url in {} {}/healthz http://1.1.1.1/ http://example.com/; do \
         curl -s -m 3 -o /dev/null $url && echo \"reached $url\"; done; true",
        house.upstream.url(),
        house.api
    );
    for network in [
        json!({ "mode": "none" }),
        json!({ "mode": "loopback" }),
        json!({ "mode": "allowlist", "domains": ["only.test"] }),
    ] {
        let result = house
            .exec(&session, json!({ "cmd": "sh", "args": ["-c", script], "network": network }))
            .await;
        assert_eq!(result["stdout"], "{\"path\":\"/v1/models\"}\n", "{network}: {result}");
    }
    let seen = house.upstream.seen();
    assert_eq!(seen.len(), 3);
    assert!(seen.iter().all(|seen| seen.headers["authorization"] == format!("Bearer {CANARY}")));
}

#[tokio::test]
async fn an_admin_may_use_the_keys_of_dev() {
    let house = House::with(&["--openai-api-key", CANARY]).await;
    let (status, session) =
        house.post(As("root-key"), "/v1/sessions", json!({ "services": ["openai"] })).await;
    assert_eq!(status, 201, "{session}");
    let token = session["env"]["OPENAI_API_KEY"].as_str().unwrap();
    let response = house
        .client
        .get(format!("{}/v1/openai/x", house.proxy))
        .bearer_auth(token)
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(
        house.post(As("acme-key"), "/v1/sessions", json!({ "services": ["openai"] })).await.0,
        400
    );
}

#[tokio::test]
async fn an_expired_session_runs_nothing() {
    let house = House::new().await;
    let session = house.session_with(json!({ "services": ["openai"], "ttl_secs": 1 })).await;
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    let path = format!("/v1/sessions/{}/exec", session["id"].as_str().unwrap());
    let (status, answer) = house.post(As("acme-key"), &path, json!({ "cmd": "true" })).await;
    assert_eq!((status, answer["error"].as_str()), (400, Some("bad request: session expired")));
}

#[tokio::test]
async fn a_command_that_is_not_there_is_a_result() {
    let house = House::new().await;
    let session = house.session("openai").await;
    let result = house.exec(&session, json!({ "cmd": "no-such-command" })).await;
    assert_eq!(result["exit_code"], 127);
    assert!(result["stderr"].as_str().unwrap().contains("no-such-command: command not found"));
    let result = house.exec(&session, json!({ "cmd": "sh", "args": ["-c", "kill -9 $$"] })).await;
    assert_eq!((&result["exit_code"], &result["signal"]), (&json!(137), &json!("SIGKILL")));
}
