//! Snapshots: what is kept, what is told of it, and that nothing written later changes it.

use std::collections::BTreeMap;

use e2e::house::{As, House, id};
use reqwest::Method;
use serde_json::{Value, json};

const ACME: As<'_> = As("acme-key");

/// Everything of a tree that a program can tell: type, mode, size, time, content, target, attributes.
const TELL: &str = r"
import hashlib, os, stat
for root in (b'/workspace', b'/output'):
    for at, directories, files in sorted(os.walk(root)):
        for name in sorted(directories + files) + [b'.']:
            path = os.path.join(at, name)
            s = os.lstat(path)
            told = [oct(s.st_mode), s.st_size if stat.S_ISREG(s.st_mode) else '', s.st_mtime_ns]
            if stat.S_ISLNK(s.st_mode): told.append(os.readlink(path))
            elif stat.S_ISREG(s.st_mode): told.append(hashlib.sha256(open(path, 'rb').read()).hexdigest()[:12])
            if not stat.S_ISLNK(s.st_mode):
                told += sorted((a, os.getxattr(path, a)) for a in os.listxattr(path))
            print(path, *told)
";

const FILL: &str = r"
import os
os.makedirs(b'/workspace/empty/deep')
os.makedirs('/workspace/node_modules/.bin')
open('/workspace/node_modules/tool.js', 'w').write('x')
os.symlink('../tool.js', '/workspace/node_modules/.bin/tool')
os.symlink('/etc/passwd', '/workspace/absolute')
os.symlink('nowhere', '/workspace/dangling')
open(b'/workspace/caf\xe9 \xff\n', 'wb').write(b'\x00\xff')
open('/workspace/one', 'w').write('linked'); os.link('/workspace/one', '/workspace/two')
with open('/workspace/sparse', 'wb') as f: f.seek(50 << 20); f.write(b'end')
open('/workspace/run', 'w').write('#!/bin/sh\n'); os.chmod('/workspace/run', 0o751)
os.chmod('/workspace/empty', 0o700); os.mkdir('/workspace/sticky'); os.chmod('/workspace/sticky', 0o1777)
os.setxattr('/workspace/one', 'user.note', b'kept \x00'); os.setxattr('/workspace/empty', 'user.dir', b'1')
os.utime('/workspace/run', ns=(1, 123456789987654321))
open('/output/result', 'w').write('42')
os.utime('/workspace/empty', ns=(1, 1000000001))
";

#[tokio::test]
async fn a_tree_comes_back_as_it_was() {
    let house = House::new().await;
    let made = house.workspace(json!({})).await;
    let python = async |workspace: &Value, script: &str| {
        let path = format!("/v1/workspaces/{}/exec", id(workspace));
        let body = json!({ "cmd": "python3", "args": ["-c", script] });
        let (_, result) = house.post(ACME, &path, body).await;
        assert_eq!(result["exit_code"], 0, "{result}");
        result["stdout"].as_str().unwrap().to_owned()
    };
    python(&made, FILL).await;
    let before = python(&made, TELL).await;
    assert!(before.lines().count() > 20, "{before}");
    let snapshot = house.snapshot(&made, "all").await;
    let back = house.restored(&snapshot).await;
    assert_eq!(python(&back, TELL).await, before);
    let shape = "stat -c %i one two | uniq | wc -l; stat -c %b sparse";
    let shape = house.says(&back, shape).await;
    let blocks: u64 = shape.lines().nth(1).unwrap().parse().unwrap();
    assert!(
        shape.starts_with("1\n") && blocks < 1000,
        "one file of two names, and a hole: {shape}"
    );
    // The same when a command was running: it is copied then.
    let path = format!("/v1/workspaces/{}/exec", id(&back));
    let body = json!({ "cmd": "sh", "args": ["-c", "touch -d @5 /workspace/empty; echo ready; exec sleep 20"] });
    let request = house.request(ACME, Method::POST, &format!("{path}/stream")).json(&body);
    let mut stream = request.send().await.unwrap();
    let mut seen = String::new();
    while !seen.contains("ready") {
        seen.push_str(&String::from_utf8_lossy(&stream.chunk().await.unwrap().unwrap()));
    }
    let snapshot = house.snapshot(&back, "running").await;
    assert!(snapshot["freeze_ms"].as_f64().unwrap() > 0.0, "{snapshot}");
    drop(stream);
    let again = house.restored(&snapshot).await;
    let now = python(&again, TELL).await;
    let changed: Vec<_> =
        now.lines().filter(|line| !before.lines().any(|old| old == *line)).collect();
    assert!(changed.iter().all(|line| line.contains("/workspace/empty")), "{changed:?}");
}

#[tokio::test]
async fn a_whole_tree_is_copied_under_a_running_command() {
    // Not sealed before: all of it is copied, by what reads an upper tree.
    let house = House::new().await;
    let made = house.workspace(json!({})).await;
    let script = format!(
        "{FILL}\nimport os, time\nos.mkfifo('/workspace/fifo')\nimport socket\n\
        s = socket.socket(socket.AF_UNIX); s.bind('/workspace/socket')\nprint('ready', flush=True)\ntime.sleep(30)"
    );
    let path = format!("/v1/workspaces/{}/exec/stream", id(&made));
    let body = json!({ "cmd": "python3", "args": ["-c", script] });
    let mut stream = house.request(ACME, Method::POST, &path).json(&body).send().await.unwrap();
    let mut seen = String::new();
    while !seen.contains("ready") {
        let chunk = stream.chunk().await.unwrap();
        seen.push_str(&String::from_utf8_lossy(&chunk.unwrap_or_else(|| panic!("{seen}"))));
    }
    let snapshot = house.snapshot(&made, "running").await;
    drop(stream);
    let tell = |workspace: Value| {
        let house = &house;
        async move {
            let path = format!("/v1/workspaces/{}/exec", id(&workspace));
            let body = json!({ "cmd": "python3", "args": ["-c", TELL] });
            e2e::house::eventually("it is free", async || {
                house.post(ACME, &path, json!({ "cmd": "true" })).await.0 == 200
            })
            .await;
            house.post(ACME, &path, body).await.1["stdout"].as_str().unwrap().to_owned()
        }
    };
    let there = tell(made.clone()).await;
    let copied = tell(house.restored(&snapshot).await).await;
    let without = |text: &str| {
        let lines = text.lines().filter(|line| {
            !["fifo", "socket"].iter().any(|name| line.contains(name))
                // The directory they were in, whose time they changed.
                && !line.starts_with("b'/workspace/.'")
        });
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(without(&copied), without(&there));
    assert!(there.contains("fifo") && !copied.contains("fifo") && !copied.contains("socket"));
}

#[tokio::test]
async fn what_is_not_kept_is_reported() {
    let house = House::new().await;
    let made = house.workspace(json!({})).await;
    let script = "mkfifo fifo; python3 -c \"import socket; socket.socket(socket.AF_UNIX).bind('sock')\"; echo a > a; chmod 4755 a; stat -c %a a";
    house.in_workspace(&made, script).await;
    let snapshot = house.snapshot(&made, "odd").await;
    let left_out = &snapshot["left_out"];
    assert_eq!(left_out["count"], 2, "{left_out}");
    let reasons: BTreeMap<&str, &str> = left_out["first"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| (entry["path"].as_str().unwrap(), entry["reason"].as_str().unwrap()))
        .collect();
    assert_eq!(reasons["workspace/fifo"], "a FIFO");
    assert_eq!(reasons["workspace/sock"], "a socket");
    let back = house.restored(&snapshot).await;
    assert_eq!(
        house.says(&back, "ls; stat -c %a a").await,
        "a\n644\n",
        "no set-id bit was ever there"
    );
}

#[tokio::test]
async fn nothing_written_later_changes_a_snapshot_or_a_sibling() {
    let house = House::new().await;
    let made = house.workspace(json!({})).await;
    house.says(&made, "printf one > a; printf two > b; mkdir d; printf in > d/x").await;
    let snapshot = house.snapshot(&made, "base").await;
    let manifest = format!("/v1/snapshots/{}/manifest", id(&snapshot));
    let before = house.get(ACME, &manifest).await.1;
    let (left, right) = (house.restored(&snapshot).await, house.restored(&snapshot).await);
    // In place, by append, by truncation, by mapping, by mode, by name, and by taking it away.
    let vandal = "printf more >> a; : > b; python3 -c \"import mmap; f = open('d/x', 'r+b'); m = mmap.mmap(f.fileno(), 0); m[0:2] = b'XX'; m.flush()\"; chmod 777 a; mv d e; rm b; ln a c";
    for workspace in [&made, &left] {
        house.in_workspace(workspace, vandal).await;
    }
    assert_eq!(house.says(&right, "cat a b d/x; ls; stat -c %a a").await, "onetwoina\nb\nd\n644\n");
    assert_eq!(house.get(ACME, &manifest).await.1, before);
    let (_, verified) =
        house.post(ACME, &format!("/v1/snapshots/{}/verify", id(&snapshot)), json!({})).await;
    assert_eq!(verified, json!({ "intact": true, "error": null }));
    assert_eq!(house.says(&house.restored(&snapshot).await, "cat a b d/x").await, "onetwoin");
}

#[tokio::test]
async fn a_change_that_keeps_size_and_time_is_seen() {
    let house = House::new().await;
    let made = house.workspace(json!({})).await;
    house.says(&made, "printf before > a; touch -d @1000 a").await;
    let first = house.snapshot(&made, "first").await;
    house.says(&made, "printf AFTER! > a; touch -d @1000 a; stat -c '%s %Y' a").await;
    let second = house.snapshot(&made, "second").await;
    let path = format!("/v1/snapshots/{}/diff?against={}", id(&second), id(&first));
    let (status, diff) = house.get(ACME, &path).await;
    assert_eq!(status, 200, "{diff}");
    assert_eq!(diff["totals"], json!({ "added": 0, "changed": 1, "removed": 0 }));
    let change = &diff["changed"][0];
    assert_eq!(change["before"]["size"], change["after"]["size"]);
    assert_ne!(change["before"]["hash"], change["after"]["hash"]);
    assert_eq!(house.says(&house.restored(&first).await, "cat a").await, "before");
}

#[tokio::test]
async fn manifests_differences_and_archives_tell_the_same() {
    let house = House::new().await;
    let made = house.workspace(json!({})).await;
    house
        .says(
            &made,
            "printf hello > a; mkdir -p d/empty; printf x > d/x; ln -s a l; printf o > /output/o",
        )
        .await;
    let first = house.snapshot(&made, "first").await;
    assert_eq!((&first["size_bytes"], &first["files"]), (&json!(7), &json!(3)));
    assert_eq!(first["path"], "");
    let (_, manifest) = house.get(ACME, &format!("/v1/snapshots/{}/manifest", id(&first))).await;
    assert_eq!(manifest["kind"], "incremental");
    let entries = manifest["entries"].as_array().unwrap();
    let output = manifest["output"].as_array().unwrap();
    let told: Vec<_> = entries
        .iter()
        .chain(output)
        .map(|entry| {
            format!("{} {} {}", entry["root"], entry["type"], entry["path"]).replace('"', "")
        })
        .collect();
    assert_eq!(
        told,
        [
            "workspace file a",
            "workspace directory d/empty",
            "workspace file d/x",
            "workspace symlink l",
            "output file o"
        ]
    );
    // BLAKE3 of "hello", as its authors publish it.
    let hello = "ea8f163db38682925e4491c5e58d4bb3506ef8c14eb78a86e908c5624a67200f";
    assert_eq!((&entries[0]["hash"], &entries[0]["mode"]), (&json!(hello), &json!(0o100_644)));
    assert_eq!(entries[3]["target"], "a");
    house.says(&made, "rm -r d; printf hello > b; chmod 600 a").await;
    let second = house.snapshot(&made, "second").await;
    let path = format!("/v1/snapshots/{}/diff?against={}", id(&second), id(&first));
    let (_, diff) = house.get(ACME, &path).await;
    let paths = |field: &str| {
        let entries = diff[field].as_array().unwrap().iter();
        entries.map(|entry| entry["path"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(paths("added"), ["b"]);
    assert_eq!(paths("removed"), ["d", "d/empty", "d/x"]);
    assert_eq!(diff["changed"][0]["after"]["path"], "a", "its mode");
    let (_, none) = house.get(ACME, &format!("{path}&limit=1")).await;
    assert_eq!(none["truncated"], true);
    let path = format!("/v1/snapshots/{}/tar", id(&second));
    let archive = house.request(ACME, Method::GET, &path).send().await.unwrap();
    assert_eq!(archive.headers()["content-type"], "application/x-tar");
    let target = tempfile::tempdir().unwrap();
    std::fs::write(target.path().join("it.tar"), archive.bytes().await.unwrap()).unwrap();
    let unpacked = tokio::process::Command::new("tar")
        .args(["xf", "it.tar"])
        .current_dir(target.path())
        .status()
        .await
        .unwrap();
    assert!(unpacked.success());
    let read = |path: &str| std::fs::read_to_string(target.path().join(path)).unwrap();
    assert_eq!(read("workspace/a") + &read("workspace/b") + &read("output/o"), "hellohelloo");
    assert!(
        target.path().join("workspace/l").is_symlink()
            && !target.path().join("workspace/d").exists()
    );
}

#[tokio::test]
async fn snapshots_are_found_searched_and_deleted_once() {
    let house = House::new().await;
    let (one, two) = (house.workspace(json!({})).await, house.workspace(json!({})).await);
    let first = house.snapshot(&one, "deps-ready").await;
    house.snapshot(&one, "other").await;
    house.snapshot(&two, "other").await;
    let list = async |who, query: &str| house.get(who, &format!("/v1/snapshots{query}")).await.1;
    assert_eq!(list(ACME, "").await["total"], 3);
    assert_eq!(list(ACME, &format!("?workspace_id={}", id(&one))).await["total"], 2);
    assert_eq!(list(ACME, "?q=DEPS").await["rows"][0]["id"], first["id"]);
    assert_eq!(list(ACME, &format!("?q=other&workspace_id={}", id(&two))).await["total"], 1);
    assert_eq!(list(As("globex-key"), "").await["total"], 0);
    let path = format!("/v1/snapshots/{}", id(&first));
    let admins = house.get(As("root-key"), &path).await.1;
    assert!(admins["path"].as_str().unwrap().starts_with('/'));
    for (method, tail) in [
        (Method::GET, ""),
        (Method::GET, "/manifest"),
        (Method::GET, "/tar"),
        (Method::GET, &format!("/diff?against={}", id(&first))),
        (Method::POST, "/verify"),
        (Method::DELETE, ""),
    ] {
        let request = house.request(As("globex-key"), method, &format!("{path}{tail}"));
        assert_eq!(request.send().await.unwrap().status(), 404, "{tail}");
    }
    assert_eq!(house.delete(ACME, &path).await.0, 204);
    let (status, error) = house.delete(ACME, &path).await;
    assert_eq!(
        (status, &error["error"]),
        (404, &json!(format!("not found: snapshot {}", id(&first))))
    );
    let (status, _) = house.get(ACME, &format!("{path}/diff")).await;
    assert_eq!(status, 400, "no `against`");
}

#[tokio::test]
async fn from_a_snapshot_wants_the_proof() {
    let house = House::new().await;
    let (one, other) =
        (house.workspace(json!({ "memory_mb": 99 })).await, house.workspace(json!({})).await);
    house.says(&one, "echo 1 > a").await;
    let snapshot = house.snapshot(&one, "s").await;
    let from = async |who, snapshot: &str, parent: Value| {
        let body = json!({ "snapshot_id": snapshot, "parent_workspace_id": parent });
        house.post(who, "/v1/workspaces/from-snapshot", body).await
    };
    let (status, made) = from(ACME, id(&snapshot), one["id"].clone()).await;
    assert_eq!((status, &made["config"]["memory_mb"]), (201, &json!(99)));
    assert_eq!(from(ACME, id(&snapshot), other["id"].clone()).await.0, 404);
    assert_eq!(from(As("globex-key"), id(&snapshot), one["id"].clone()).await.0, 404);
    assert_eq!(from(ACME, "snap_000000000000000000000000", one["id"].clone()).await.0, 404);
    let (status, error) = from(ACME, id(&snapshot), json!("  ")).await;
    assert_eq!(
        (status, &error["error"]),
        (400, &json!("bad request: parent_workspace_id is required"))
    );
    let (status, error) =
        house.post(ACME, "/v1/workspaces/from-snapshot", json!({ "snapshot_id": "x" })).await;
    assert!(status == 400 && error["error"].as_str().unwrap().contains("parent_workspace_id"));
}

#[tokio::test]
async fn a_workspace_goes_back_to_its_own_snapshots() {
    let house = House::new().await;
    let (made, other) = (house.workspace(json!({})).await, house.workspace(json!({})).await);
    house.says(&made, "echo 1 > a").await;
    let snapshot = house.snapshot(&made, "good").await;
    house.says(&made, "echo 2 > a; echo x > b").await;
    let restore = async |workspace: &Value| {
        let path = format!("/v1/workspaces/{}/restore", id(workspace));
        house.post(ACME, &path, json!({ "snapshot_id": snapshot["id"] })).await
    };
    let (status, _) = restore(&made).await;
    assert_eq!(status, 200);
    assert_eq!(house.says(&made, "cat a; ls").await, "1\na\n");
    assert_eq!(restore(&other).await.0, 404);
}

#[tokio::test]
async fn old_snapshots_go_by_age_and_number_but_never_one_that_is_waited_for() {
    let flags = [
        "--snapshot-max-count",
        "2",
        "--snapshot-gc-tick-secs",
        "1",
        "--idle-check-interval-secs",
        "1",
    ];
    let house = House::with(&flags).await;
    let sleeper = house.workspace(json!({ "idle_timeout_secs": 1 })).await;
    house.says(&sleeper, "echo dream > a").await;
    let path = format!("/v1/workspaces/{}", id(&sleeper));
    e2e::house::eventually("it is paused", async || {
        house.get(ACME, &path).await.1["paused_at"].is_string()
    })
    .await;
    let made = house.workspace(json!({})).await;
    for n in 0..5 {
        house.says(&made, &format!("echo {n} > a")).await;
        house.snapshot(&made, &n.to_string()).await;
    }
    let names = async || {
        let (_, list) = house.get(ACME, "/v1/snapshots").await;
        let rows = list["rows"].as_array().unwrap().iter();
        rows.map(|row| row["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let auto = format!("auto:{}", id(&sleeper));
    e2e::house::eventually("two are left, and the one waited for", async || {
        names().await == ["4", "3", auto.as_str()]
    })
    .await;
    assert_eq!(house.says(&sleeper, "cat a").await, "dream\n");
    assert_eq!(house.says(&made, "cat a").await, "4\n");
}
