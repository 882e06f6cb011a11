//! Idle workspaces are put aside, and come back.

use std::time::{Duration, Instant};

use e2e::house::{As, House, eventually, id};
use serde_json::{Value, json};

const ACME: As<'_> = As("acme-key");
const QUICK: [&str; 2] = ["--idle-check-interval-secs", "1"];

async fn paused(house: &House, workspace: &Value) -> Value {
    let path = format!("/v1/workspaces/{}", id(workspace));
    eventually("it is paused", async || house.get(ACME, &path).await.1["paused_at"].is_string())
        .await;
    house.get(ACME, &path).await.1
}

#[tokio::test]
async fn an_idle_workspace_is_put_aside_and_the_next_command_brings_it_back() {
    let house = House::with(&QUICK).await;
    let made = house.workspace(json!({ "idle_timeout_secs": 1 })).await;
    house.says(&made, "echo kept > a; echo o > /output/o").await;
    let row = paused(&house, &made).await;
    let auto = row["auto_snapshot"].as_str().unwrap().to_owned();
    let (_, snapshot) = house.get(ACME, &format!("/v1/snapshots/{auto}")).await;
    assert_eq!(snapshot["name"], format!("auto:{}", id(&made)));
    assert_eq!(snapshot["size_bytes"], 7);
    let (status, error) = house.delete(ACME, &format!("/v1/snapshots/{auto}")).await;
    assert!(status == 409 && error["error"].as_str().unwrap().contains(id(&made)), "{error}");
    // A snapshot and a fork of what is put aside are of what it holds.
    assert_eq!(house.snapshot(&made, "while paused").await["size_bytes"], 7);
    let path = format!("/v1/workspaces/{}/fork", id(&made));
    let (_, forked) = house.post(ACME, &path, json!({ "count": 1 })).await;
    assert_eq!(house.says(&forked["forks"][0], "cat a").await, "kept\n");
    assert_eq!(house.says(&made, "cat a /output/o; echo new > b").await, "kept\no\n");
    let row = house.get(ACME, &format!("/v1/workspaces/{}", id(&made))).await.1;
    assert_eq!((&row["paused_at"], &row["auto_snapshot"]), (&Value::Null, &Value::Null));
    assert_eq!(house.delete(ACME, &format!("/v1/snapshots/{auto}")).await.0, 204);
    let auto = paused(&house, &made).await["auto_snapshot"].clone();
    assert_eq!(house.says(&made, "cat a b").await, "kept\nnew\n", "and again");
    let again = paused(&house, &made).await["auto_snapshot"].clone();
    assert_eq!(auto, again, "nothing was written: the same snapshot will do");
}

#[tokio::test]
async fn a_command_longer_than_the_idle_time_keeps_its_files() {
    let house = House::with(&QUICK).await;
    let made = house.workspace(json!({ "idle_timeout_secs": 1 })).await;
    let began = Instant::now();
    let script = "for i in 1 2 3 4 5 6 7; do echo $i >> log; sleep 0.5; test -f log || exit 9; done; wc -l < log";
    assert_eq!(house.says(&made, script).await, "7\n");
    let took = began.elapsed();
    let path = format!("/v1/workspaces/{}", id(&made));
    let row = house.get(ACME, &path).await.1;
    assert_eq!(row["paused_at"], Value::Null, "not while it ran ({took:?}), and not at its end");
    paused(&house, &made).await;
    assert_eq!(house.says(&made, "wc -l < log").await, "7\n");
}

#[tokio::test]
async fn never_means_never_and_absurd_times_harm_nobody() {
    let house = House::with(&QUICK).await;
    let never = house.workspace(json!({ "idle_timeout_secs": 0 })).await;
    let ages = house.workspace(json!({ "idle_timeout_secs": 100 * 365 * 24 * 3600_u64 })).await;
    let soon = house.workspace(json!({ "idle_timeout_secs": 1 })).await;
    paused(&house, &soon).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    for workspace in [&never, &ages] {
        let row = house.get(ACME, &format!("/v1/workspaces/{}", id(workspace))).await.1;
        assert_eq!(row["paused_at"], Value::Null);
    }
    let (_, list) = house.get(ACME, "/v1/snapshots").await;
    assert_eq!(list["total"], 1, "paused once, not again and again");
}
