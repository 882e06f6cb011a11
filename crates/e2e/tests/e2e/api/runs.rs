//! `/v1/runs`

use std::time::{Duration, Instant};

use e2e::house::{As, House, eventually};
use serde_json::json;

#[tokio::test]
async fn code_runs_in_three_languages() {
    let house = House::new().await;
    for (language, code) in [
        (
            None,
            "import fs from 'node:fs'; fs.writeFileSync('/output/x', '42'); console.log(fs.readFileSync('/output/x', 'utf8'))",
        ),
        (Some("js"), "console.log(await Promise.resolve(42))"),
        (
            Some("python"),
            "import threading\nt = threading.Thread(target=print, args=(42,)); t.start(); t.join()",
        ),
        (Some("py"), "print(42)"),
        (Some("bash"), "echo 42"),
        (Some("sh"), "echo $((6*7))"),
    ] {
        let mut body = json!({ "code": code });
        if let Some(language) = language {
            body["language"] = json!(language);
        }
        let (status, result) = house.post(As("acme-key"), "/v1/runs", body).await;
        assert_eq!(
            (status, &result["stdout"], &result["exit_code"]),
            (201, &json!("42\n"), &json!(0)),
            "{language:?} {result}"
        );
        assert!(
            result["duration_ms"].as_u64().unwrap() >= 1
                && result["stats"]["memory_peak_bytes"].as_u64().unwrap() > 0
        );
    }
}

#[tokio::test]
async fn the_code_cannot_be_written_to_and_output_can() {
    let house = House::new().await;
    let result = house
        .sh("echo x > /workspace/main.sh; touch /workspace/y; touch /output/z && ls /output")
        .await;
    assert_eq!(result["stdout"], "z\n");
    assert_eq!(
        result["stderr"].as_str().unwrap().matches("Read-only file system").count(),
        2,
        "{result}"
    );
}

#[tokio::test]
async fn a_timeout_kills_everything_however_it_hides() {
    let house = House::new().await;
    let code = "setsid sh -c 'trap \"\" TERM INT HUP; sleep 31337' & (setsid sleep 31337 > /dev/null 2>&1 &) ; exec 1>&- 2>&-; sleep 31337";
    let began = Instant::now();
    let body = json!({ "language": "bash", "code": code, "timeout_secs": 1 });
    let (_, result) = house.post(As("acme-key"), "/v1/runs", body).await;
    assert_eq!((&result["timed_out"], &result["exit_code"]), (&json!(true), &json!(137)));
    assert!(began.elapsed() < Duration::from_secs(4));
    eventually("no sleeper is left", async || e2e::leftovers::processes("sleep 31337").is_empty())
        .await;
}

#[tokio::test]
async fn partial_lines_and_binary_output_are_kept() {
    let house = House::new().await;
    let result = house
        .sh("printf abc; sleep 0.7; echo err >&2; printf 'def\\377\\n'; printf 'é%.0s' $(seq 3)")
        .await;
    assert_eq!(result["stdout"], "abcdef\u{fffd}\nééé");
    assert_eq!(result["stderr"], "err\n");
}

#[tokio::test]
async fn output_is_cut_at_the_limit_and_says_so() {
    let house = House::with(&["--output-limit-bytes", "20001"]).await;
    let code = "import sys; sys.stdout.write('x' + 'é' * 40000)";
    let (_, result) =
        house.post(As("acme-key"), "/v1/runs", json!({ "language": "python", "code": code })).await;
    assert_eq!(result["stdout"].as_str().unwrap().len(), 20001);
    assert_eq!(
        (&result["stdout_truncated"], &result["stderr_truncated"]),
        (&json!(true), &json!(false))
    );
    let code = "import sys\nfor _ in range(200): sys.stdout.write('y' * (1 << 20))";
    let (_, result) =
        house.post(As("acme-key"), "/v1/runs", json!({ "language": "python", "code": code })).await;
    assert_eq!((&result["exit_code"], &result["stdout_truncated"]), (&json!(0), &json!(true)));
}

#[tokio::test]
async fn too_many_at_once_is_429_with_a_hint() {
    let house = House::with(&["--max-concurrent", "2"]).await;
    let body = json!({ "language": "bash", "code": "sleep 2" });
    let send =
        || house.request(As("acme-key"), reqwest::Method::POST, "/v1/runs").json(&body).send();
    let (a, b, late) = tokio::join!(send(), send(), async {
        eventually("two are running", async || {
            house.get(As("acme-key"), "/v1/stats").await.1["active_execs"] == 2
        })
        .await;
        send().await
    });
    assert_eq!((a.unwrap().status().as_u16(), b.unwrap().status().as_u16()), (201, 201));
    let late = late.unwrap();
    assert_eq!(
        (late.status().as_u16(), late.headers()["retry-after"].to_str().unwrap()),
        (429, "1")
    );
    assert_eq!(late.text().await.unwrap(), r#"{"error":"too many concurrent executions"}"#);
    assert_eq!(house.sh("true").await["exit_code"], 0);
}

#[tokio::test]
async fn a_client_that_hangs_up_ends_its_run_and_the_row_is_closed() {
    let house = House::new().await;
    let body = json!({ "language": "bash", "code": "sleep 41414" });
    let request =
        house.request(As("acme-key"), reqwest::Method::POST, "/v1/runs").json(&body).send();
    assert!(tokio::time::timeout(Duration::from_millis(700), request).await.is_err());
    eventually("the jail is gone", async || e2e::leftovers::processes("sleep 41414").is_empty())
        .await;
    eventually("the row is closed", async || {
        let (_, jails) = house.get(As("acme-key"), "/v1/jails").await;
        jails["rows"][0]["status"] == "error" && jails["rows"][0]["error"] == "the client went away"
    })
    .await;
}

#[tokio::test]
async fn a_session_can_run_code_too() {
    let house = House::new().await;
    let session = house.session("openai").await;
    let id = session["id"].as_str().unwrap();
    let code = json!({ "language": "bash", "code": "echo $OPENAI_API_KEY" });
    let (status, result) =
        house.post(As("acme-key"), &format!("/v1/sessions/{id}/runs"), code.clone()).await;
    assert_eq!(
        (status, result["stdout"].as_str().unwrap().trim()),
        (201, session["env"]["OPENAI_API_KEY"].as_str().unwrap())
    );
    let mut with = code;
    with["session_id"] = json!(id);
    assert_eq!(house.post(As("acme-key"), "/v1/runs", with).await.1["stdout"], result["stdout"]);
}

#[tokio::test]
async fn a_flavor_is_on_the_path_and_cannot_be_changed() {
    let house = House::new().await;
    let flavor = house.state.path().join("state/flavors/greeter/bin");
    std::fs::create_dir_all(&flavor).unwrap();
    std::fs::create_dir(house.state.path().join("state/flavors/Not A Flavor")).unwrap();
    std::fs::write(flavor.join("greet"), "#!/bin/sh\necho hello from $0\n").unwrap();
    std::os::unix::fs::symlink("greet", flavor.join("hail")).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(flavor.join("greet"), mode).unwrap();
    assert_eq!(house.get(As("acme-key"), "/v1/flavors").await.1, json!([{ "name": "greeter" }]));
    let body = json!({ "language": "sh", "code": "hail; touch /opt/flavors/greeter/bin/x || touch /opt/flavors/x", "flavors": ["greeter", "greeter"] });
    let (_, result) = house.post(As("acme-key"), "/v1/runs", body).await;
    assert_eq!(result["stdout"], "hello from /opt/flavors/greeter/bin/hail\n");
    assert_eq!(
        result["stderr"].as_str().unwrap().matches("Read-only file system").count(),
        2,
        "{result}"
    );
}
