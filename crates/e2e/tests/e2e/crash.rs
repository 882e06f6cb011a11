//! `kill -9`, restart, compare; and a clean stop.

use std::time::Duration;

use e2e::house::{As, House, eventually};
use e2e::leftovers;
use reqwest::Method;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tokio::task::JoinSet;

/// Starts runs that would go on for ever, and waits until they do.
async fn with_runs(house: &House, marker: &str) -> JoinSet<Option<u16>> {
    let mut runs = JoinSet::new();
    for _ in 0..3 {
        let body =
            json!({ "language": "bash", "code": format!("sleep {marker} & sleep {marker}") });
        let request = house.request(As("acme-key"), Method::POST, "/v1/runs").json(&body).send();
        runs.spawn(async move { request.await.ok().map(|answer| answer.status().as_u16()) });
    }
    eventually("six sleepers", async || {
        leftovers::processes(&format!("sleep {marker}")).len() >= 6
    })
    .await;
    runs
}

async fn nothing_is_left(server: u32, marker: &str) {
    eventually("no process is left", async || {
        leftovers::processes(&format!("sleep {marker}")).is_empty()
    })
    .await;
    eventually("no cgroup is left", async || leftovers::cgroups(server).is_empty()).await;
    assert_eq!(leftovers::mounts(), Vec::<String>::new());
}

#[tokio::test]
async fn killing_the_server_leaves_nothing_and_loses_nothing() {
    let mut house = House::new().await;
    let session = house.session("openai").await;
    house.sh("echo done").await;
    let runs = with_runs(&house, "60606").await;
    let server = house.pid();
    assert!(!leftovers::cgroups(server).is_empty());
    house.end(Signal::KILL).await;
    runs.join_all().await;
    nothing_is_left(server, "60606").await;
    house.restart().await;
    let (_, jails) = house.get(As("acme-key"), "/v1/jails").await;
    assert_eq!(jails["total"], 4);
    for row in &jails["rows"].as_array().unwrap()[..3] {
        assert_eq!(
            (&row["status"], row["error"].is_string(), row["ended_at"].is_string()),
            (&json!("error"), true, true)
        );
    }
    assert_eq!(
        (&jails["rows"][3]["status"], &jails["rows"][3]["stdout"]),
        (&json!("completed"), &json!("done\n"))
    );
    let (_, kept) = house.get(As("acme-key"), "/v1/sessions").await;
    assert_eq!(kept, json!([session]));
    assert_eq!(house.sh("echo again").await["stdout"], "again\n");
}

#[tokio::test]
async fn killing_the_launcher_ends_its_jails_and_the_next_run_works() {
    let house = House::new().await;
    let runs = with_runs(&house, "61616").await;
    let launcher =
        std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", house.pid())).unwrap();
    let launcher: i32 = launcher.split_whitespace().next().unwrap().parse().unwrap();
    kill_process(Pid::from_raw(launcher).unwrap(), Signal::KILL).unwrap();
    runs.join_all().await;
    eventually("no process is left", async || leftovers::processes("sleep 61616").is_empty()).await;
    assert_eq!(house.sh("echo again").await["stdout"], "again\n");
    let (_, jails) = house.get(As("acme-key"), "/v1/jails?status=running").await;
    assert_eq!(jails["total"], 0);
}

#[tokio::test]
async fn a_clean_stop_ends_runs_and_closes_their_rows() {
    let mut house = House::new().await;
    let runs = with_runs(&house, "62626").await;
    let server = house.pid();
    let began = std::time::Instant::now();
    assert_eq!(house.end(Signal::TERM).await, Some(0));
    assert!(began.elapsed() < Duration::from_secs(8));
    assert_eq!(runs.join_all().await, [Some(503); 3]);
    nothing_is_left(server, "62626").await;
    house.restart().await;
    let (_, jails) = house.get(As("acme-key"), "/v1/jails").await;
    for row in jails["rows"].as_array().unwrap() {
        assert_eq!(
            (&row["status"], &row["error"]),
            (&json!("error"), &json!("the server stopped"))
        );
    }
}

#[tokio::test]
async fn a_second_server_on_the_same_state_is_refused() {
    let house = House::new().await;
    let output = tokio::process::Command::new(e2e::program())
        .args(["serve", "--ctl-addr", "127.0.0.1:0", "--proxy-addr", "127.0.0.1:0", "--state-dir"])
        .arg(house.state.path().join("state"))
        .env_clear()
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("another server uses"), "{output:?}");
}

#[tokio::test]
async fn many_runs_leave_nothing_behind() {
    // A jail that waits to be used has a cgroup, too.
    let house = House::with(&["--warm-jails", "0"]).await;
    let server = house.pid();
    let descriptors = || std::fs::read_dir(format!("/proc/{server}/fd")).unwrap().count();
    house.sh("true").await;
    let before = descriptors();
    for _ in 0..10 {
        let runs = (0..8).map(|_| house.sh("true & true"));
        for result in futures_util::future::join_all(runs).await {
            assert_eq!(result["exit_code"], 0, "{result}");
        }
    }
    eventually("no jail's cgroup is left", async || {
        leftovers::cgroups(server).iter().all(|instance| {
            std::fs::read_dir(instance).unwrap().flatten().all(|entry| !entry.path().is_dir())
        })
    })
    .await;
    eventually("no descriptor is left", async || descriptors() <= before + 12).await;
}
