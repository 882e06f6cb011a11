//! `kill -9` of the server at any moment: nothing acknowledged is lost, nothing is left over.

use std::collections::BTreeMap;
use std::time::Duration;

use e2e::house::{As, House, eventually, id};
use rustix::process::Signal;
use serde_json::{Value, json};

const ACME: As<'_> = As("acme-key");

/// A number from 0 to `below`, different every time.
fn any(below: u64) -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(0) % below
}

/// What was acknowledged.
#[derive(Debug, Default)]
struct Known {
    /// Workspaces and snapshots, and the number each holds.
    workspaces: BTreeMap<String, String>,
    snapshots: BTreeMap<String, (String, String)>,
    /// Asked to be deleted: gone or not.
    doubtful: Vec<String>,
}

/// Does things until the server is gone.
async fn work(house: &House, known: &mut Known, stop: Duration) {
    let end = tokio::time::Instant::now() + stop;
    drop(
        tokio::time::timeout_at(end, async {
            let mut n = any(1 << 40);
            loop {
                n += 1;
                let Some(workspace) = known.workspaces.keys().nth((n % 3) as usize).cloned() else {
                    let Ok(made) = send(house, "/v1/workspaces", json!({})).await else { return };
                    known.workspaces.insert(id(&made).to_owned(), String::new());
                    continue;
                };
                let path = format!("/v1/workspaces/{workspace}");
                let doing = match n % 5 {
                    0 => exec(house, known, &workspace, n).await,
                    1 => snapshot(house, known, &workspace).await,
                    2 => fork(house, known, &workspace).await,
                    3 if known.snapshots.len() > 3 => remove(house, known).await,
                    _ if known.workspaces.len() > 4 => {
                        known.doubtful.push(workspace.clone());
                        known.workspaces.remove(&workspace);
                        house.request(ACME, reqwest::Method::DELETE, &path).send().await.map(drop)
                    }
                    _ => exec(house, known, &workspace, n).await,
                };
                if doing.is_err() {
                    return;
                }
            }
        })
        .await,
    );
}

async fn send(house: &House, path: &str, body: Value) -> reqwest::Result<Value> {
    let response = house.request(ACME, reqwest::Method::POST, path).json(&body).send().await?;
    let status = response.status();
    let value: Value = response.json().await?;
    assert!(status.is_success(), "{path}: {status} {value}");
    Ok(value)
}

async fn exec(house: &House, known: &mut Known, workspace: &str, n: u64) -> reqwest::Result<()> {
    // Until it is acknowledged either of the two may be there.
    let before = known.workspaces.remove(workspace).unwrap_or_default();
    known.doubtful.push(workspace.to_owned());
    let script = format!(
        "echo {n} > new; mv new a; mkdir -p d; head -c 20000 /dev/urandom > d/{n}; ls d | head -3 | tail -1 | xargs -I{{}} rm -f d/{{}}"
    );
    let body = json!({ "cmd": "sh", "args": ["-c", script] });
    let result = send(house, &format!("/v1/workspaces/{workspace}/exec"), body).await?;
    let value = if result["exit_code"] == 0 { n.to_string() } else { before };
    known.doubtful.retain(|other| other != workspace);
    known.workspaces.insert(workspace.to_owned(), value);
    Ok(())
}

async fn snapshot(house: &House, known: &mut Known, workspace: &str) -> reqwest::Result<()> {
    let taken = send(house, &format!("/v1/workspaces/{workspace}/snapshot"), json!({})).await?;
    let value = (workspace.to_owned(), known.workspaces[workspace].clone());
    known.snapshots.insert(id(&taken).to_owned(), value);
    Ok(())
}

async fn fork(house: &House, known: &mut Known, workspace: &str) -> reqwest::Result<()> {
    let forked =
        send(house, &format!("/v1/workspaces/{workspace}/fork"), json!({ "count": 2 })).await?;
    for fork in forked["forks"].as_array().unwrap() {
        known.workspaces.insert(id(fork).to_owned(), known.workspaces[workspace].clone());
    }
    Ok(())
}

async fn remove(house: &House, known: &mut Known) -> reqwest::Result<()> {
    let (snapshot, _) = known.snapshots.pop_first().unwrap();
    let path = format!("/v1/snapshots/{snapshot}");
    house.request(ACME, reqwest::Method::DELETE, &path).send().await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_killed_at_any_moment_keeps_what_it_acknowledged_and_nothing_else() {
    let flags = ["--snapshot-gc-tick-secs", "1", "--warm-jails", "2"];
    let mut house = House::with(&flags).await;
    let mut known = Known::default();
    for _ in 0..30 {
        {
            let stop = Duration::from_millis(30 + any(500));
            work(&house, &mut known, stop).await;
        }
        house.end(Signal::KILL).await;
        house.restart().await;
        for (workspace, value) in known.workspaces.clone() {
            let body = json!({ "cmd": "sh", "args": ["-c", "cat a 2>/dev/null; find . -type f | xargs cat > /dev/null"] });
            let (status, said) =
                house.post(ACME, &format!("/v1/workspaces/{workspace}/exec"), body).await;
            let text = said["stdout"].as_str().unwrap_or_default().trim();
            assert!(status == 200 && text == value, "{workspace}: {value} {said}");
        }
        for (snapshot, (_, _)) in &known.snapshots {
            let (status, verified) =
                house.post(ACME, &format!("/v1/snapshots/{snapshot}/verify"), json!({})).await;
            assert!(status == 200 && verified["intact"] == true, "{snapshot}: {verified}");
        }
    }
    for (snapshot, (workspace, value)) in &known.snapshots {
        let body = json!({ "snapshot_id": snapshot, "parent_workspace_id": workspace });
        let (status, made) = house.post(ACME, "/v1/workspaces/from-snapshot", body).await;
        assert_eq!(status, 201, "{made}");
        let said = house.in_workspace(&made, "cat a 2>/dev/null").await;
        assert_eq!(said["stdout"].as_str().unwrap().trim(), value, "{snapshot}");
    }
    // Everything is taken away again, by its rows: then nothing may be left.
    let rows = async |path: &str| {
        house.get(ACME, &format!("{path}?limit=500")).await.1["rows"].as_array().unwrap().clone()
    };
    for row in rows("/v1/workspaces").await {
        assert_eq!(house.delete(ACME, &format!("/v1/workspaces/{}", id(&row))).await.0, 204);
    }
    for row in rows("/v1/snapshots").await {
        assert_eq!(house.delete(ACME, &format!("/v1/snapshots/{}", id(&row))).await.0, 204);
    }
    eventually("no tree is left", async || house.trees().is_empty()).await;
    let state = house.state.path().join("state");
    let count = |name: &str| {
        let walk = |path: std::path::PathBuf| {
            std::fs::read_dir(path)
                .into_iter()
                .flatten()
                .flatten()
                .map(|entry| entry.path())
                .collect::<Vec<_>>()
        };
        walk(state.join(name)).into_iter().flat_map(walk).flat_map(walk).count()
    };
    eventually("no byte is left", async || count("trash") == 0 && count("objects") == 0).await;
}

/// A caller may hang up at any moment, too.
#[tokio::test]
async fn a_caller_who_hangs_up_leaves_nothing_half_done() {
    let house = House::new().await;
    let made = house.workspace(json!({})).await;
    let path = format!("/v1/workspaces/{}", id(&made));
    house.says(&made, "for i in $(seq 300); do head -c 20000 /dev/urandom > f$i; done").await;
    let script = "while :; do head -c 100000 /dev/urandom > hot; done";
    let running = house
        .request(ACME, reqwest::Method::POST, &format!("{path}/exec/stream"))
        .json(&json!({ "cmd": "sh", "args": ["-c", script], "timeout_secs": 120 }))
        .send()
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    for n in 0..60 {
        let (tail, body) = match n % 3 {
            0 => ("snapshot", json!({})),
            1 => ("fork", json!({ "count": 2 })),
            _ => ("", json!({})),
        };
        let path = if tail.is_empty() { "/v1/workspaces".into() } else { format!("{path}/{tail}") };
        let asking = house.post(ACME, &path, body);
        drop(tokio::time::timeout(Duration::from_millis(any(60)), asking).await);
    }
    drop(running);
    // Whoever comes later waits for what was begun.
    eventually("it is free", async || {
        let body = json!({ "cmd": "true" });
        house.post(ACME, &format!("{path}/exec"), body).await.0 == 200
    })
    .await;
    let (_, snapshots) = house.get(ACME, "/v1/snapshots?limit=500").await;
    assert!(snapshots["total"].as_u64().unwrap() > 5, "what was begun was done: {snapshots}");
    for snapshot in snapshots["rows"].as_array().unwrap() {
        let verify = format!("/v1/snapshots/{}/verify", id(snapshot));
        let (status, verified) = house.post(ACME, &verify, json!({})).await;
        assert_eq!((status, &verified["intact"]), (200, &json!(true)), "{verified}");
    }
    let (_, workspaces) = house.get(ACME, "/v1/workspaces?limit=500").await;
    for workspace in workspaces["rows"].as_array().unwrap() {
        let label = workspace["label"].as_str().unwrap();
        let full = id(workspace) == id(&made) || label.starts_with("fork of");
        let count = if full { "301\n" } else { "0\n" };
        assert_eq!(house.says(workspace, "ls | wc -l").await, count);
        house.delete(ACME, &format!("/v1/workspaces/{}", id(workspace))).await;
    }
    for snapshot in snapshots["rows"].as_array().unwrap() {
        house.delete(ACME, &format!("/v1/snapshots/{}", id(snapshot))).await;
    }
    eventually("every tree is gone with its rows", async || house.trees().is_empty()).await;
}
