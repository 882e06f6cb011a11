//! `/v1/jails`: the ledger.

use e2e::house::{As, House, eventually};
use serde_json::json;

#[tokio::test]
async fn a_run_is_in_the_ledger_while_it_runs_and_after() {
    let house = House::new().await;
    let running = async {
        eventually("it runs, and tells what it said and used", async || {
            let (_, jails) = house.get(As("acme-key"), "/v1/jails?status=running").await;
            let row = &jails["rows"][0];
            row["stdout"] == "up\n"
                && row["memory_current_bytes"].as_u64().is_some_and(|bytes| bytes > 0)
        })
        .await;
    };
    let (result, ()) = tokio::join!(house.sh("echo up; sleep 1.5; echo down; exit 3"), running);
    assert_eq!(result["exit_code"], 3);
    let (_, jails) = house.get(As("acme-key"), "/v1/jails").await;
    assert_eq!(
        (&jails["total"], &jails["limit"], &jails["offset"]),
        (&json!(1), &json!(50), &json!(0))
    );
    let row = &jails["rows"][0];
    assert_eq!(
        (&row["kind"], &row["status"], &row["label"], &row["tenant_id"]),
        (&json!("run"), &json!("completed"), &json!("bash"), &json!("acme"))
    );
    assert_eq!(
        (&row["exit_code"], &row["stdout"], &row["session_id"]),
        (&json!(3), &json!("up\ndown\n"), &json!(null))
    );
    assert_eq!(
        row["config"],
        json!({ "network_mode": "none", "seccomp": "standard", "memory_mb": 512, "timeout_secs": 300, "cpu_percent": 100, "max_pids": 64 })
    );
    let id = row["id"].as_i64().unwrap();
    assert_eq!(house.get(As("acme-key"), &format!("/v1/jails/{id}")).await.1, *row);
    assert_eq!(house.get(As("acme-key"), "/v1/jails/999999").await.0, 404);
}

#[tokio::test]
async fn the_ledger_is_searched_and_paged() {
    let house = House::new().await;
    let session = house.session("openai").await;
    for n in 0..3 {
        house.exec(&session, json!({ "cmd": "sh", "args": ["-c", format!("exit {n}")] })).await;
    }
    house.sh("true").await;
    let total = async |query: &str| {
        house.get(As("acme-key"), &format!("/v1/jails?{query}")).await.1["total"].as_u64().unwrap()
    };
    assert_eq!(total("").await, 4);
    assert_eq!(total("kind=exec").await, 3);
    assert_eq!(total("kind=nonsense").await, 4);
    assert_eq!(total("status=error").await, 0);
    assert_eq!(total("q=BASH").await, 1);
    assert_eq!(total(&format!("q={}", session["id"].as_str().unwrap())).await, 3);
    assert_eq!(total("q=%25").await, 0);
    let (_, page) = house.get(As("acme-key"), "/v1/jails?kind=exec&limit=1&offset=1").await;
    assert_eq!(
        (&page["rows"][0]["exit_code"], &page["total"], page["rows"].as_array().unwrap().len()),
        (&json!(1), &json!(3), 1)
    );
    assert_eq!(house.get(As("acme-key"), "/v1/jails?limit=9999").await.1["limit"], 500);
}
