//! Making, finding, renaming, deleting; commands.

use std::time::Duration;

use e2e::house::{As, House, answer, eventually, id};
use reqwest::Method;
use serde_json::{Value, json};

const ACME: As<'_> = As("acme-key");

#[tokio::test]
async fn what_one_command_writes_the_next_one_finds() {
    let house = House::new().await;
    let made = house.workspace(json!({})).await;
    assert!(id(&made).starts_with("wrk_") && id(&made).len() == 28);
    for (field, value) in [
        ("tenant_id", json!("acme")),
        ("deleted_at", Value::Null),
        ("source_dir", json!("")),
        ("output_dir", json!("")),
        ("git_repo", Value::Null),
        ("domains", json!([])),
        ("last_exec_at", Value::Null),
        ("paused_at", Value::Null),
        ("auto_snapshot", Value::Null),
        (
            "config",
            json!({ "memory_mb": 512, "timeout_secs": 300, "cpu_percent": 100, "max_pids": 64,
                "network_mode": "none", "network_domains": [], "seccomp": "standard",
                "idle_timeout_secs": 0, "flavors": [] }),
        ),
    ] {
        assert_eq!(made[field], value, "{field}");
    }
    let label = made["label"].as_str().unwrap();
    assert_eq!(label.split('-').count(), 3, "{label}");
    assert_eq!(
        house
            .says(&made, "pwd; id -un; echo 1 > a; mkdir -p b/c; ln -s a l; echo out > /output/o")
            .await,
        "/workspace\nagent\n"
    );
    assert_eq!(
        house
            .says(
                &made,
                "cat l /output/o; find . -type d | sort; stat -c %U a b /workspace /output"
            )
            .await,
        "1\nout\n.\n./b\n./b/c\nagent\nagent\nagent\nagent\n"
    );
    let (_, jails) = house.get(ACME, "/v1/jails?kind=workspace").await;
    assert_eq!(jails["rows"][0]["label"], format!("workspace:{}/sh", id(&made)));
    let (_, now) = house.get(ACME, &format!("/v1/workspaces/{}", id(&made))).await;
    assert!(now["last_exec_at"].is_string());
}

#[tokio::test]
async fn an_exec_has_its_own_limits_environment_input_and_session() {
    let house = House::new().await;
    let made = house.workspace(json!({ "timeout_secs": 60, "memory_mb": 64 })).await;
    let path = format!("/v1/workspaces/{}/exec", id(&made));
    let exec = async |body: Value| house.post(ACME, &path, body).await;
    let (_, late) = exec(json!({ "cmd": "sleep", "args": ["60"], "timeout_secs": 1 })).await;
    assert_eq!((&late["timed_out"], &late["exit_code"]), (&json!(true), &json!(137)));
    let script = "import sys; x = bytearray(100 << 20); print(len(x))";
    let (_, fat) = exec(json!({ "cmd": "python3", "args": ["-c", script] })).await;
    assert_eq!(fat["oom_killed"], true, "the workspace's own limit: {fat}");
    let (_, fits) =
        exec(json!({ "cmd": "python3", "args": ["-c", script], "memory_mb": 512 })).await;
    assert_eq!(fits["stdout"], "104857600\n", "{fits}");
    let (_, said) =
        exec(json!({ "cmd": "sh", "args": ["-c", "echo $A $PATH; cat"], "stdin": "typed",
        "env": [["A", "1"], ["A", "2"], ["PATH", "/usr/bin:/bin"]] }))
        .await;
    assert_eq!(said["stdout"], "2 /usr/bin:/bin\ntyped", "{said}");
    let session = house.session("openai").await;
    let (_, said) = exec(json!({ "cmd": "sh", "session_id": session["id"],
        "args": ["-c", "echo $OPENAI_API_KEY; curl -s -o /dev/null -w %{http_code} $OPENAI_BASE_URL/models -H \"authorization: Bearer $OPENAI_API_KEY\""] }))
    .await;
    let lines = format!("{}\n200", session["env"]["OPENAI_API_KEY"].as_str().unwrap());
    assert_eq!(said["stdout"], lines, "{said}");
    for (body, says) in [
        (json!({}), "missing field `cmd`"),
        (json!({ "cmd": "" }), "cmd: must not be empty"),
        (json!({ "cmd": "a\0b" }), "cmd: holds a NUL"),
        (json!({ "cmd": "true", "env": [["A=B", "1"]] }), "env[0]: a name"),
        (json!({ "cmd": "true", "env": [["A"]] }), "env[0]"),
        (json!({ "cmd": "true", "memory_mb": 0 }), "memory_mb must be at least 1"),
    ] {
        let (status, error) = exec(body).await;
        assert!(status == 400 && error["error"].as_str().unwrap().contains(says), "{error}");
    }
    let (status, error) = exec(json!({ "cmd": "true", "session_id": "sess_nosuch" })).await;
    assert_eq!(status, 404, "{error}");
    let (_, missing) = exec(json!({ "cmd": "nosuch" })).await;
    assert_eq!(missing["exit_code"], 127);
}

#[tokio::test]
async fn a_second_exec_is_told_to_wait_and_a_stream_is_one() {
    let house = House::new().await;
    let made = house.workspace(json!({})).await;
    let path = format!("/v1/workspaces/{}/exec", id(&made));
    let body = json!({ "cmd": "sh", "args": ["-c", "echo first; sleep 30"] });
    let request = house.request(ACME, Method::POST, &format!("{path}/stream")).json(&body);
    let mut stream = request.send().await.unwrap();
    let mut seen = String::new();
    while !seen.contains("data: first") {
        seen.push_str(&String::from_utf8_lossy(&stream.chunk().await.unwrap().unwrap()));
    }
    let (status, error) = house.post(ACME, &path, json!({ "cmd": "true" })).await;
    let text = "conflict: another exec is in flight against this workspace";
    assert_eq!((status, &error["error"]), (409, &json!(text)));
    // Whoever leaves ends it.
    drop(stream);
    eventually("the workspace is free", async || {
        house.post(ACME, &path, json!({ "cmd": "true" })).await.0 == 200
    })
    .await;
}

#[tokio::test]
async fn lists_are_paged_searched_and_a_tenants_own() {
    let house = House::new().await;
    for label in ["alpha", "beta 100%", "Gamma"] {
        house.workspace(json!({ "label": format!("  {label} ") })).await;
    }
    let list = async |who, query: &str| house.get(who, &format!("/v1/workspaces{query}")).await.1;
    let labels = |list: &Value| {
        let rows = list["rows"].as_array().unwrap().iter();
        rows.map(|row| row["label"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let all = list(ACME, "").await;
    assert_eq!(labels(&all), ["Gamma", "beta 100%", "alpha"]);
    assert_eq!((&all["total"], &all["limit"], &all["offset"]), (&json!(3), &json!(50), &json!(0)));
    let page = list(ACME, "?limit=1&offset=1").await;
    assert_eq!((labels(&page), &page["total"]), (vec!["beta 100%".to_owned()], &json!(3)));
    assert_eq!(list(ACME, "?limit=9999").await["limit"], 500);
    assert_eq!(labels(&list(ACME, "?q=%20GAMM").await), ["Gamma"]);
    assert_eq!(labels(&list(ACME, "?q=100%25").await), ["beta 100%"], "no pattern");
    assert_eq!(list(As("globex-key"), "").await["total"], 0);
    assert_eq!(list(As("root-key"), "").await["total"], 3);
    assert_eq!(list(As("root-key"), "?tenant=globex").await["total"], 0);
    assert_eq!(house.get(As("globex-key"), "/v1/workspaces?tenant=acme").await.0, 404);
    let shown = &list(As("root-key"), "").await["rows"][0];
    assert!(shown["source_dir"].as_str().unwrap().starts_with('/'), "{shown}");
}

#[tokio::test]
async fn a_label_can_be_changed_and_nothing_else() {
    let house = House::new().await;
    let made = house.workspace(json!({ "label": "old" })).await;
    let path = format!("/v1/workspaces/{}", id(&made));
    let patch = async |who, body: Value| {
        answer(house.request(who, Method::PATCH, &path).json(&body).send().await.unwrap()).await
    };
    assert_eq!(patch(ACME, json!({ "label": " new " })).await.1["label"], "new");
    let (_, drawn) = patch(ACME, json!({ "label": null })).await;
    assert_eq!(drawn["label"].as_str().unwrap().split('-').count(), 3);
    assert_eq!(patch(As("globex-key"), json!({ "label": "mine" })).await.0, 404);
    assert_eq!(patch(ACME, json!({ "label": "a\nb" })).await.0, 400);
    assert_eq!(patch(ACME, json!({ "label": "x".repeat(201) })).await.0, 400);
    assert_eq!(house.get(ACME, &path).await.1["config"], made["config"]);
}

#[tokio::test]
async fn deleting_ends_what_runs_and_leaves_no_files_but_the_snapshots() {
    let house = House::new().await;
    let made = house.workspace(json!({})).await;
    house.says(&made, "echo kept > a").await;
    let snapshot = house.snapshot(&made, "before").await;
    house.says(&made, "head -c 100000 /dev/zero > big").await;
    let trees = house.trees().len();
    let path = format!("/v1/workspaces/{}", id(&made));
    let body = json!({ "cmd": "sleep", "args": ["53535"] });
    let run = house.request(ACME, Method::POST, &format!("{path}/exec")).json(&body).send();
    let delete = async {
        eventually("it sleeps", async || !e2e::leftovers::processes("sleep 53535").is_empty())
            .await;
        house.delete(ACME, &path).await
    };
    let (ended, (status, _)) = tokio::join!(run, delete);
    let (_, ended) = answer(ended.unwrap()).await;
    assert_eq!((status, &ended["exit_code"]), (204, &json!(137)), "{ended}");
    assert!(e2e::leftovers::processes("sleep 53535").is_empty());
    assert_eq!(house.trees().len(), trees - 1, "what was written since is gone");
    for (method, path) in [
        (Method::GET, path.clone()),
        (Method::DELETE, path.clone()),
        (Method::POST, format!("{path}/exec")),
    ] {
        let request = house.request(ACME, method, &path).json(&json!({ "cmd": "true" }));
        assert_eq!(request.send().await.unwrap().status(), 404, "{path}");
    }
    let back = house.restored(&snapshot).await;
    assert_eq!(house.says(&back, "cat a; ls").await, "kept\na\n");
    // With the last that refers to them, the layers go.
    house.delete(ACME, &format!("/v1/snapshots/{}", id(&snapshot))).await;
    house.delete(ACME, &format!("/v1/workspaces/{}", id(&back))).await;
    eventually("no tree is left", async || house.trees().is_empty()).await;
    let objects = house.state.path().join("state/objects/acme");
    eventually("no object is left", async || {
        let shards = std::fs::read_dir(&objects).into_iter().flatten().flatten();
        shards.flat_map(|shard| std::fs::read_dir(shard.path()).into_iter().flatten()).count() == 0
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_is_refused_by_field() {
    let house = House::new().await;
    for (body, says) in [
        (json!([]), "an object is expected"),
        (json!({ "flavors": ["nosuch"] }), "unknown flavor: \"nosuch\""),
        (json!({ "network": { "mode": "allowlist", "domains": [] } }), "at least one domain"),
        (json!({ "idle_timeout_secs": -1 }), "idle_timeout_secs"),
        (json!({ "idle_timeout_secs": u64::MAX }), "idle_timeout_secs must be at most"),
        (
            json!({ "domains": [{ "domain": "a.test" }] }),
            "one of backend_url / vm_port is required",
        ),
        (
            json!({ "domains": [{ "domain": "a.test", "vm_port": 80, "backend_url": "http://b" }] }),
            "exactly one of backend_url / vm_port",
        ),
        (json!({ "domains": [{ "domain": "a.test", "vm_port": 0 }] }), "vm_port must be > 0"),
        (json!({ "domains": [{ "domain": "a.test", "vm_port": 65536 }] }), "vm_port"),
        (
            json!({ "domains": [{ "domain": "a.test", "backend_url": "ftp://b" }] }),
            "backend_url must start with http:// or https:// (got \"ftp://b\")",
        ),
        (json!({ "domains": [{ "domain": "a b", "vm_port": 1 }] }), "is not a host name"),
        (json!({ "git": { "repo": "git@github.com:a/b" } }), "must be https://"),
        (json!({ "label": "x".repeat(500) }), "label"),
    ] {
        let (status, error) = house.post(ACME, "/v1/workspaces", body.clone()).await;
        let text = error["error"].as_str().unwrap_or_default();
        assert!(status == 400 && text.contains(says), "{body}: {status} {error}");
    }
    assert_eq!(house.get(ACME, "/v1/workspaces").await.1["total"], 0);
    assert!(house.trees().is_empty(), "nothing is left of them");
    tokio::time::sleep(Duration::from_millis(1)).await;
}

#[tokio::test]
async fn a_flavor_that_went_away_is_told() {
    let house = House::new().await;
    let flavor = house.state.path().join("state/flavors/tools");
    std::fs::create_dir_all(flavor.join("bin")).unwrap();
    std::fs::write(flavor.join("bin/tool"), "#!/bin/sh\necho here\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(flavor.join("bin/tool"), mode).unwrap();
    let made = house.workspace(json!({ "flavors": ["tools", "tools"] })).await;
    assert_eq!(made["config"]["flavors"], json!(["tools"]));
    assert_eq!(house.says(&made, "tool").await, "here\n");
    std::fs::remove_dir_all(&flavor).unwrap();
    let path = format!("/v1/workspaces/{}/exec", id(&made));
    let (status, error) = house.post(ACME, &path, json!({ "cmd": "true" })).await;
    let text = "bad request: flavor \"tools\" is no longer available on this server";
    assert_eq!((status, &error["error"]), (400, &json!(text)));
}

#[tokio::test]
async fn a_workspace_closed_to_its_own_user_is_open_again_for_the_next_command() {
    let house = House::new().await;
    let made = house.workspace(json!({})).await;
    house.says(&made, "echo in > file; chmod 0 /workspace /output").await;
    assert_eq!(house.says(&made, "cat file; touch /output/also; ls /output").await, "in\nalso\n");
    let snapshot = house.snapshot(&made, "closed").await;
    house.says(&made, "chmod 0 /workspace /output").await;
    let fork = house.restored(&house.snapshot(&made, "closed again").await).await;
    assert_eq!(house.says(&fork, "cat file").await, "in\n");
    assert_eq!(house.says(&house.restored(&snapshot).await, "cat file").await, "in\n");
}
