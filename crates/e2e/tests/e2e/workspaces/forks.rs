//! Forks: of workspaces, idle and at work; of runs.

use std::time::{Duration, Instant};

use e2e::house::{As, House, answer, eventually, id};
use reqwest::{Method, Response};
use serde_json::{Value, json};

const ACME: As<'_> = As("acme-key");

/// Starts a command in a workspace, and waits until it says something.
async fn at_work(
    house: &House,
    workspace: &Value,
    cmd: &str,
    args: &[&str],
    word: &str,
) -> Response {
    let path = format!("/v1/workspaces/{}/exec/stream", id(workspace));
    let body = json!({ "cmd": cmd, "args": args });
    let mut stream = house.request(ACME, Method::POST, &path).json(&body).send().await.unwrap();
    let mut seen = String::new();
    while !seen.contains(word) {
        let chunk = stream.chunk().await.unwrap();
        seen.push_str(&String::from_utf8_lossy(&chunk.unwrap_or_else(|| panic!("{seen}"))));
    }
    stream
}

async fn fork(house: &House, workspace: &Value, count: u64) -> Value {
    let path = format!("/v1/workspaces/{}/fork", id(workspace));
    let (status, forked) = house.post(ACME, &path, json!({ "count": count })).await;
    assert_eq!(status, 201, "{forked}");
    forked
}

#[tokio::test]
async fn forks_begin_alike_and_go_their_own_ways() {
    let house = House::new().await;
    let domains = json!([{ "domain": "fork.test", "vm_port": 80 }]);
    let made = house.workspace(json!({ "label": "base", "max_pids": 9, "domains": domains })).await;
    house.says(&made, "echo 1 > a; echo o > /output/o").await;
    let path = format!("/v1/workspaces/{}/fork", id(&made));
    let (status, forked) = house.post(ACME, &path, json!({ "count": 3, "label": "try" })).await;
    assert_eq!(status, 201, "{forked}");
    assert_eq!((&forked["parent"]["id"], &forked["freeze_ms"]), (&made["id"], &Value::Null));
    let forks = forked["forks"].as_array().unwrap();
    for (n, fork) in forks.iter().enumerate() {
        assert_eq!(fork["label"], format!("try-{n}"));
        assert_eq!(fork["config"], made["config"]);
        assert_eq!(fork["domains"], json!([]));
        assert_eq!(house.says(fork, &format!("cat a /output/o; echo {n} > a")).await, "1\no\n");
    }
    house.says(&made, "echo parent > a").await;
    for (n, fork) in forks.iter().enumerate() {
        assert_eq!(house.says(fork, "cat a").await, format!("{n}\n"));
    }
    let snapshot = forked["snapshot_id"].as_str().unwrap();
    let (_, snapshot) = house.get(ACME, &format!("/v1/snapshots/{snapshot}")).await;
    assert_eq!(snapshot["name"], format!("fork-origin:{}", id(&made)));
    assert_eq!(snapshot["size_bytes"], 4);
    let unnamed = fork(&house, &made, 1).await;
    assert_eq!(unnamed["forks"][0]["label"], format!("fork of {}-0", id(&made)));
    for count in [0, 17] {
        let (status, error) = house.post(ACME, &path, json!({ "count": count })).await;
        let text = "bad request: fork.count must be 1..=16";
        assert_eq!((status, &error["error"]), (400, &json!(text)));
    }
    assert_eq!(house.post(ACME, &path, json!({})).await.0, 400);
    assert_eq!(house.post(As("globex-key"), &path, json!({ "count": 1 })).await.0, 404);
}

#[tokio::test]
async fn a_long_chain_is_squashed_and_reads_the_same() {
    let house = House::new().await;
    let made = house.workspace(json!({})).await;
    for n in 0..24 {
        let before = n - 2;
        house.says(&made, &format!("echo {n} > f{n}; rm -f f{before}; echo {n} >> log; mkdir -p d; ln -sf f{n} d/last")).await;
        house.snapshot(&made, &n.to_string()).await;
    }
    let (_, list) = house.get(ACME, "/v1/snapshots?limit=100").await;
    for row in &list["rows"].as_array().unwrap()[1..] {
        house.delete(ACME, &format!("/v1/snapshots/{}", id(row))).await;
    }
    // Not one a snapshot that once was: a chain has an end.
    eventually("few trees are left", async || house.trees().len() <= 18).await;
    assert_eq!(
        house.says(&made, "ls; tail -1 log; wc -l < log; readlink d/last").await,
        "d\nf22\nf23\nlog\n23\n24\nf23\n"
    );
    let last = &list["rows"][0];
    let (_, verified) =
        house.post(ACME, &format!("/v1/snapshots/{}/verify", id(last)), json!({})).await;
    assert_eq!(verified["intact"], true, "{verified}");
    assert_eq!(house.says(&house.restored(last).await, "cat f23").await, "23\n");
}

/// Writes without end to a database in WAL mode, and commits to a repository.
const WRITER: &str = r"
import os, sqlite3, subprocess, sys
db = sqlite3.connect('/workspace/db', isolation_level=None)
db.execute('PRAGMA journal_mode=WAL'); db.execute('PRAGMA wal_autocheckpoint=7')
db.execute('CREATE TABLE IF NOT EXISTS t (n INTEGER PRIMARY KEY, a BLOB, b BLOB)')
git = lambda *a: subprocess.run(['git', '-C', '/workspace/repo', *a], check=True, stdout=subprocess.DEVNULL)
if not os.path.exists('/workspace/repo'):
    os.mkdir('/workspace/repo'); git('init', '-q')
    git('config', 'user.name', 'x'); git('config', 'user.email', 'x@example.com')
print('ready', flush=True)
n = 0
while True:
    n += 1
    blob = os.urandom(3000)
    db.execute('BEGIN'); db.execute('INSERT INTO t (a) VALUES (?)', (blob,))
    db.execute('UPDATE t SET b = a WHERE n = last_insert_rowid()'); db.execute('COMMIT')
    if n % 50 == 0:
        open('/workspace/repo/f', 'w').write(str(n)); git('add', 'f'); git('commit', '-qm', str(n))
";

/// Whether both are whole.
const CHECK: &str = r"
import os, sqlite3, subprocess
db = sqlite3.connect('/workspace/db')
assert db.execute('PRAGMA integrity_check').fetchall() == [('ok',)], 'integrity'
assert db.execute('SELECT count(*) FROM t WHERE a IS NOT b').fetchone() == (0,), 'half a transaction'
if os.path.exists('/workspace/repo/.git/HEAD'):
    for lock in ('index.lock', 'HEAD.lock', 'refs/heads/master.lock', 'refs/heads/main.lock'):
        path = '/workspace/repo/.git/' + lock
        if os.path.exists(path): os.remove(path)
    said = subprocess.run(['git', '-C', '/workspace/repo', 'fsck', '--no-dangling'], capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
print(db.execute('SELECT count(*) FROM t').fetchone()[0])
";

#[tokio::test(flavor = "multi_thread")]
async fn databases_and_repositories_survive_200_forks_under_write_load() {
    let house = House::new().await;
    let made = house.workspace(json!({ "memory_mb": 1024, "timeout_secs": 600 })).await;
    let stream = at_work(&house, &made, "python3", &["-c", WRITER], "ready").await;
    let (mut freezes, mut rows) = (Vec::new(), 0);
    for _ in 0..25 {
        let forked = fork(&house, &made, 8).await;
        freezes.push(forked["freeze_ms"].as_f64().unwrap());
        for fork in forked["forks"].as_array().unwrap() {
            let path = format!("/v1/workspaces/{}", id(fork));
            let body = json!({ "cmd": "python3", "args": ["-c", CHECK] });
            let (_, checked) = house.post(ACME, &format!("{path}/exec"), body).await;
            assert_eq!(checked["exit_code"], 0, "{checked}");
            rows = rows.max(checked["stdout"].as_str().unwrap().trim().parse().unwrap_or(0));
            house.delete(ACME, &path).await;
        }
        let path = format!("/v1/snapshots/{}", forked["snapshot_id"].as_str().unwrap());
        assert_eq!(house.delete(ACME, &path).await.0, 204);
    }
    drop(stream);
    assert!(rows > 100, "it was at work: {rows}");
    freezes.sort_by(f64::total_cmp);
    println!("frozen: p50 {:.2} ms, longest {:.2} ms", freezes[12], freezes[24]);
    eventually("the forks' trees are gone", async || house.trees().len() <= 2).await;
}

#[tokio::test]
async fn a_run_is_forked_while_it_runs() {
    let house = House::new().await;
    let code = |text: &str| json!({ "code": text });
    let body = json!({
        "language": "bash",
        "parent_code": "mkdir /output/d; echo parent > /output/d/p; sleep 1.2; echo late > /output/late; ls /output",
        "children": [code("cat /output/d/p; echo one > /output/d/p; cat /output/d/p; ls /output"), code("cat /output/d/p")],
        "fork_after_ms": 500, "timeout_secs": 20,
    });
    let (status, forked) = house.post(ACME, "/v1/runs/fork", body).await;
    assert_eq!(status, 201, "{forked}");
    assert_eq!(forked["parent"]["stdout"], "d\nlate\n");
    assert_eq!(forked["children"][0]["stdout"], "parent\none\nd\n", "{forked}");
    assert_eq!(forked["children"][1]["stdout"], "parent\n");
    assert_eq!((&forked["child"], &forked["fork"]), (&forked["children"][0], &forked["forks"][0]));
    let meta = &forked["fork"];
    assert_eq!(
        (&meta["was_frozen"], &meta["files_cloned"], &meta["bytes_cloned"]),
        (&json!(true), &json!(1), &json!(7))
    );
    assert!(meta["freeze_ms"].as_f64().unwrap() > 0.0 && meta["method"].is_string());
    let (_, jails) = house.get(ACME, "/v1/jails?kind=fork").await;
    let rows = jails["rows"].as_array().unwrap();
    let labels: Vec<_> = rows.iter().map(|row| row["label"].as_str().unwrap()).collect();
    assert_eq!(labels, ["bash \u{b7} child 1", "bash \u{b7} child 0", "bash \u{b7} parent"]);
    assert_eq!((&rows[0]["parent_id"], &rows[2]["parent_id"]), (&rows[2]["id"], &Value::Null));
    eventually("nothing is left of it", async || house.trees().is_empty()).await;
    // One that has ended by then is forked as it ended.
    let body = json!({ "language": "bash", "parent_code": "echo x > /output/x", "child_code": "cat /output/x", "fork_after_ms": 30000 });
    let began = Instant::now();
    let (_, forked) = house.post(ACME, "/v1/runs/fork", body).await;
    assert_eq!(
        (&forked["child"]["stdout"], &forked["fork"]["was_frozen"]),
        (&json!("x\n"), &json!(false)),
        "{forked}"
    );
    assert!(began.elapsed() < Duration::from_secs(10));
    let (_, jails) = house.get(ACME, "/v1/jails?kind=fork&limit=1").await;
    assert_eq!(jails["rows"][0]["label"], "bash \u{b7} child");
}

#[tokio::test]
async fn each_child_of_a_run_has_its_own_memory() {
    let house = House::new().await;
    let fat = "x = bytearray(90 << 20); print(len(x))";
    let body = json!({
        "language": "python", "parent_code": "print(1)", "memory_mb": 64, "fork_after_ms": 0,
        "children": [{ "code": fat, "memory_mb": 256 }, { "code": fat }],
    });
    let (status, forked) = house.post(ACME, "/v1/runs/fork", body).await;
    assert_eq!(status, 201, "{forked}");
    assert_eq!(forked["children"][0]["exit_code"], 0, "{forked}");
    assert_eq!(forked["children"][1]["oom_killed"], true);
}

#[tokio::test]
async fn a_fork_that_cannot_be_is_refused_whole() {
    let house = House::with(&["--max-concurrent", "2"]).await;
    for (body, says) in [
        (json!({}), "missing field `parent_code`"),
        (json!({ "parent_code": "1" }), "children or child_code is required"),
        (json!({ "parent_code": "1", "children": [] }), "children or child_code is required"),
        (
            json!({ "parent_code": "1", "child_code": "1", "children": [{ "code": "1" }] }),
            "not both",
        ),
        (
            json!({ "parent_code": "1", "children": vec![json!({ "code": "1" }); 17] }),
            "at most 16 children",
        ),
        (
            json!({ "parent_code": "1", "child_code": "1", "language": "cobol" }),
            "unsupported language",
        ),
        (json!({ "parent_code": "1", "children": [{ "code": "1", "memory_mb": 0 }] }), "memory_mb"),
    ] {
        let (status, error) = house.post(ACME, "/v1/runs/fork", body).await;
        assert!(status == 400 && error["error"].as_str().unwrap().contains(says), "{error}");
    }
    let family = |children: usize| {
        let children = vec![json!({ "code": "true" }); children];
        json!({ "language": "bash", "parent_code": "true", "children": children, "fork_after_ms": 0 })
    };
    let (status, error) = house.post(ACME, "/v1/runs/fork", family(3)).await;
    assert!(status == 400 && error["error"].as_str().unwrap().contains("at most 2"), "{error}");
    assert_eq!(house.post(ACME, "/v1/runs/fork", family(2)).await.0, 201);
    let body = json!({ "language": "bash", "code": "sleep 1.5" });
    let sleeping = house.request(ACME, Method::POST, "/v1/runs").json(&body).send();
    let late = async {
        eventually("one runs", async || {
            house.get(ACME, "/v1/jails?status=running").await.1["total"] == 1
        })
        .await;
        let before = house.get(ACME, "/v1/jails").await.1["total"].clone();
        assert_eq!(house.post(ACME, "/v1/runs/fork", family(2)).await.0, 429);
        assert_eq!(house.get(ACME, "/v1/jails").await.1["total"], before, "half a family is none");
    };
    let (slept, ()) = tokio::join!(sleeping, late);
    assert_eq!(slept.unwrap().status(), 201);
}

#[tokio::test]
async fn whoever_leaves_ends_the_family() {
    let house = House::new().await;
    let body = json!({ "language": "bash", "parent_code": "sleep 52525", "child_code": "sleep 52525", "fork_after_ms": 100 });
    let request = house.request(ACME, Method::POST, "/v1/runs/fork").json(&body).send();
    tokio::select! {
        answered = request => panic!("{:?}", answer(answered.unwrap()).await),
        () = eventually("both sleep", async || e2e::leftovers::processes("sleep 52525").len() >= 2) => {}
    }
    eventually("nobody sleeps", async || e2e::leftovers::processes("sleep 52525").is_empty()).await;
    eventually("rows are closed", async || {
        house.get(ACME, "/v1/jails?status=running").await.1["total"] == 0
    })
    .await;
    eventually("nothing is left", async || house.trees().is_empty()).await;
}

#[tokio::test]
async fn a_parent_that_outlives_its_children_keeps_its_place() {
    let house = House::with(&["--max-concurrent", "1"]).await;
    let body = json!({
        "language": "bash", "parent_code": "sleep 3", "child_code": "true", "fork_after_ms": 0
    });
    let family = house.post(ACME, "/v1/runs/fork", body);
    let meanwhile = async {
        eventually("the child has ended", async || {
            let (_, jails) = house.get(ACME, "/v1/jails").await;
            let rows = jails["rows"].as_array().unwrap();
            rows.len() == 2 && rows.iter().any(|row| row["exit_code"] == 0)
        })
        .await;
        let run = json!({ "language": "bash", "code": "true" });
        assert_eq!(house.post(ACME, "/v1/runs", run).await.0, 429, "the parent still runs");
    };
    let ((status, forked), ()) = tokio::join!(family, meanwhile);
    assert_eq!((status, &forked["parent"]["exit_code"]), (201, &json!(0)), "{forked}");
    let run = json!({ "language": "bash", "code": "true" });
    assert_eq!(house.post(ACME, "/v1/runs", run).await.0, 201);
}
