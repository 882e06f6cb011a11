//! Quotas, rates, and keys that are made while the server runs.

use e2e::house::{As, House, answer, eventually, id};
use reqwest::Method;
use serde_json::{Value, json};

const ACME: As<'_> = As("acme-key");

#[tokio::test]
async fn each_quota_is_a_tenants_own_and_names_itself() {
    let flags = [
        "--quota-workspaces",
        "2",
        "--quota-sessions",
        "1",
        "--quota-jails",
        "1",
        "--quota-mb",
        "1",
    ];
    let house = House::with(&flags).await;
    let refused = async |path: &str, body: Value, says: &str| {
        let response = house.request(ACME, Method::POST, path).json(&body).send().await.unwrap();
        let after = response.headers().get("retry-after").cloned();
        let (status, error) = answer(response).await;
        let text = error["error"].as_str().unwrap_or_default();
        assert!(
            status == 429 && text.contains(says) && after.is_some(),
            "{path}: {status} {error}"
        );
    };
    house.session("openai").await;
    refused("/v1/sessions", json!({ "services": ["openai"] }), "quota of sessions").await;
    let one = house.workspace(json!({})).await;
    // Those that are about to be made count: of many at once, one is.
    let many = futures_util::future::join_all(
        (0..8).map(|_| house.post(ACME, "/v1/workspaces", json!({}))),
    )
    .await;
    assert_eq!(many.iter().filter(|(status, _)| *status == 201).count(), 1);
    refused("/v1/workspaces", json!({}), "quota of workspaces").await;
    let path = format!("/v1/workspaces/{}", id(&one));
    refused(&format!("{path}/fork"), json!({ "count": 1 }), "quota of workspaces").await;
    assert_eq!(house.post(As("globex-key"), "/v1/workspaces", json!({})).await.0, 201);
    let exec = format!("{path}/exec");
    let sleeping = house
        .request(ACME, Method::POST, &exec)
        .json(&json!({ "cmd": "sleep", "args": ["2"] }))
        .send();
    let late = async {
        eventually("it runs", async || {
            house.get(ACME, "/v1/jails?status=running").await.1["total"] == 1
        })
        .await;
        refused(
            "/v1/runs",
            json!({ "language": "bash", "code": "true" }),
            "quota of concurrent jails",
        )
        .await;
        let (status, _) = house
            .post(As("globex-key"), "/v1/runs", json!({ "language": "bash", "code": "true" }))
            .await;
        assert_eq!(status, 201, "another tenant's are its own");
    };
    let (slept, ()) = tokio::join!(sleeping, late);
    assert_eq!(slept.unwrap().status(), 200);
    house.says(&one, "head -c 1200000 /dev/urandom > big").await;
    refused(&format!("{path}/snapshot"), json!({}), "quota of bytes").await;
    refused(&exec, json!({ "cmd": "true" }), "quota of bytes").await;
    house.delete(ACME, &path).await;
    eventually("there is room again", async || {
        house.post(ACME, "/v1/workspaces", json!({})).await.0 == 201
    })
    .await;
}

#[tokio::test]
async fn what_writes_beyond_the_quota_is_ended_and_sealed_bytes_count_on() {
    let house = House::with(&["--quota-mb", "64"]).await;
    let one = house.workspace(json!({})).await;
    let path = format!("/v1/workspaces/{}", id(&one));
    house.says(&one, "head -c 40000000 /dev/urandom > first").await;
    house.snapshot(&one, "first").await;
    let greedy = "while :; do head -c 5000000 /dev/urandom >> second; sleep 0.2; done";
    let body = json!({ "cmd": "sh", "args": ["-c", greedy], "timeout_secs": 60 });
    let (status, ended) = house.post(ACME, &format!("{path}/exec"), body).await;
    let why = ended["error"].as_str().unwrap_or_default();
    assert!(status == 200 && why.contains("quota of bytes"), "{status} {ended}");
    assert_eq!((&ended["signal"], &ended["timed_out"]), (&json!("SIGKILL"), &json!(false)));
    let (_, jails) = house.get(ACME, "/v1/jails?limit=1").await;
    assert_eq!(jails["rows"][0]["error"], ended["error"], "the ledger says the same");
    for tail in ["exec", "snapshot"] {
        let body = json!({ "cmd": "true" });
        let (status, error) = house.post(ACME, &format!("{path}/{tail}"), body).await;
        assert!(status == 429, "{tail}: {error}");
    }
    // A run's own tree counts as long as it is there.
    let (status, error) = house.post(ACME, "/v1/workspaces", json!({})).await;
    assert!(
        status == 429 && error["error"].as_str().unwrap().contains("quota of bytes"),
        "{error}"
    );
    let (_, snapshots) = house.get(ACME, "/v1/snapshots").await;
    let restore = json!({ "snapshot_id": snapshots["rows"][0]["id"] });
    let (status, restored) = house.post(ACME, &format!("{path}/restore"), restore).await;
    assert_eq!(status, 200, "{restored}");
    assert_eq!(house.says(&one, "ls").await, "first\n", "there is room again");
    // What has no name is found, too; and what nobody can measure is not free.
    let hidden = "exec 3>f; rm f; while :; do head -c 5000000 /dev/urandom >&3; sleep 0.2; done";
    let body = json!({ "cmd": "sh", "args": ["-c", hidden], "timeout_secs": 60 });
    let (_, ended) = house.post(ACME, &format!("{path}/exec"), body).await;
    let why = ended["error"].as_str().unwrap_or_default();
    assert!(why.contains("quota of bytes"), "{ended}");
    let deep = "import os\nfor n in range(300): os.mkdir('d'); os.chdir('d')";
    let body = json!({ "cmd": "python3", "args": ["-c", deep] });
    let (status, ended) = house.post(ACME, &format!("{path}/exec"), body).await;
    assert_eq!((status, &ended["exit_code"]), (200, &json!(0)), "{ended}");
    let (status, error) = house.post(ACME, "/v1/workspaces", json!({})).await;
    assert!(status == 429, "{error}");
}

#[tokio::test]
async fn downloads_that_nobody_reads_hold_no_more_than_their_share() {
    let house = House::new().await;
    let one = house.workspace(json!({})).await;
    house.says(&one, "head -c 60000000 /dev/urandom > big").await;
    let snapshot = house.snapshot(&one, "big").await;
    let path = format!("/v1/snapshots/{}/tar", id(&snapshot));
    let mut open = Vec::new();
    let refused = loop {
        let response = house.request(ACME, Method::GET, &path).send().await.unwrap();
        if response.status() != 200 {
            break response;
        }
        open.push(response);
        assert!(open.len() < 32, "there is no end");
    };
    assert_eq!((refused.status().as_u16(), open.len()), (429, 8));
    drop(open);
    eventually("the others may read again", async || {
        house.request(ACME, Method::GET, &path).send().await.unwrap().status() == 200
    })
    .await;
}

#[tokio::test]
async fn more_requests_than_the_rate_are_told_when_to_come_again() {
    let house = House::with(&["--quota-requests-per-sec", "5"]).await;
    let mut refused = None;
    for _ in 0..30 {
        let response = house.request(ACME, Method::GET, "/v1/whoami").send().await.unwrap();
        if response.status() == 429 {
            refused = Some(response);
            break;
        }
    }
    let refused = refused.expect("thirty at once are too many");
    assert_eq!(refused.headers()["retry-after"], "1");
    assert!(refused.headers().contains_key("x-request-id"));
    let (_, error) = answer(refused).await;
    assert!(error["error"].as_str().unwrap().contains("quota of requests"));
    assert_eq!(house.get(As("globex-key"), "/v1/whoami").await.0, 200);
    eventually("it may again", async || house.get(ACME, "/v1/whoami").await.0 == 200).await;
}

#[tokio::test]
async fn keys_are_made_shown_once_and_end_at_once() {
    let mut house = House::new().await;
    let root = As("root-key");
    let (status, made) = house
        .post(root, "/v1/keys", json!({ "role": "operator", "tenant": "acme", "label": "ci" }))
        .await;
    assert_eq!(status, 201, "{made}");
    let key = made["key"].as_str().unwrap().to_owned();
    assert_eq!(
        house.get(As(&key), "/v1/whoami").await.1,
        json!({ "tenant": "acme", "role": "operator" })
    );
    let (_, list) = house.get(root, "/v1/keys").await;
    assert_eq!((&list[0]["id"], list[0].get("key")), (&made["id"], None));
    assert!(list[0]["last_used_at"].is_string());
    for who in [ACME, As(&key)] {
        assert_eq!(house.get(who, "/v1/keys").await.0, 404, "for admins");
        assert_eq!(house.post(who, "/v1/keys", json!({ "role": "admin" })).await.0, 404);
    }
    house.end(rustix::process::Signal::KILL).await;
    house.restart().await;
    assert_eq!(house.get(As(&key), "/v1/whoami").await.0, 200, "kept");
    for entry in std::fs::read_dir(house.state.path().join("state")).unwrap().flatten() {
        let bytes = std::fs::read(entry.path()).unwrap_or_default();
        let clear = bytes.windows(key.len()).any(|window| window == key.as_bytes());
        assert!(!clear, "{} has it in clear", entry.path().display());
    }
    let path = format!("/v1/keys/{}", id(&made));
    assert_eq!(house.delete(root, &path).await.0, 204);
    assert_eq!(house.get(As(&key), "/v1/whoami").await.0, 401);
    assert_eq!(house.delete(root, &path).await.0, 404);
    let (_, short) = house.post(root, "/v1/keys", json!({ "role": "admin", "ttl_secs": 1 })).await;
    let short = short["key"].as_str().unwrap();
    eventually("it ends by itself", async || house.get(As(short), "/v1/whoami").await.0 == 401)
        .await;
    for (body, says) in [
        (json!({}), "missing field `role`"),
        (json!({ "role": "king" }), "role"),
        (json!({ "role": "admin", "ttl_secs": 0 }), "ttl_secs"),
        (json!({ "role": "admin", "tenant": "No Tenant" }), "tenant"),
    ] {
        let (status, error) = house.post(root, "/v1/keys", body).await;
        assert!(status == 400 && error["error"].as_str().unwrap().contains(says), "{error}");
    }
}
