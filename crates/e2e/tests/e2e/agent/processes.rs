//! Processes: ended whole, told of at once, their output neither lost nor repeated.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use e2e::house::eventually;
use e2e::sandbox::{Events, Sandbox, is_alive};
use futures_util::StreamExt as _;
use reqwest::Method;
use rustix::process::Signal;
use serde_json::{Value, json};

fn text(data: &Value) -> String {
    let bytes = STANDARD.decode(data["data"].as_str().unwrap()).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

async fn start(sandbox: &Sandbox, code: &str) -> String {
    let (status, info) =
        sandbox.post("/v1/processes", json!({ "command": "sh", "args": ["-c", code] })).await;
    assert_eq!(status, 200, "{info}");
    info["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_run_tells_how_it_ended() {
    let sandbox = Sandbox::new().await;
    let result = sandbox.sh("echo out; echo err >&2; exit 3").await;
    assert_eq!((result["exitCode"].as_i64(), result["timedOut"].as_bool()), (Some(3), Some(false)));
    assert_eq!(
        (result["stdout"].as_str(), result["stderr"].as_str()),
        (Some("out\n"), Some("err\n"))
    );
    let killed = sandbox.sh("kill -9 $$").await;
    assert_eq!((killed["exitCode"].clone(), killed["signal"].as_i64()), (Value::Null, Some(9)));
    let run = async |body: Value| sandbox.post("/v1/processes/run", body).await;
    let (_, cut) = run(json!({ "command": "sh", "args": ["-c", "head -c 100000 /dev/zero"], "maxOutputBytes": 10 })).await;
    assert_eq!(
        (cut["stdout"].as_str().unwrap().len(), cut["stdoutTruncated"].as_bool()),
        (10, Some(true))
    );
    // Every field that some client sends as null.
    let nulls = json!({ "command": "true", "args": null, "cwd": null, "env": null, "timeoutMs": null, "maxOutputBytes": null });
    assert_eq!(run(nulls).await.1["exitCode"], 0);
    for (body, says) in [
        (json!({ "command": " " }), "command must not be empty"),
        (json!({ "command": "no-such-program" }), "no-such-program"),
        (json!({ "command": "/etc/passwd" }), "not executable"),
        (json!({ "command": "true", "cwd": "/no/where" }), "/no/where"),
        (json!({ "command": "true", "env": { "A=B": "c" } }), "env"),
        (json!({ "command": "true", "args": "x" }), "args"),
        (json!({ "command": "true", "args": ["a\u{0}b"] }), "args"),
    ] {
        let (status, problem) = run(body).await;
        assert_eq!(status, 400, "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains(says), "{problem}");
    }
}

/// A child in the background used to hold the answer back for ten seconds, and a timeout as well.
#[tokio::test]
async fn what_is_left_in_the_background_does_not_hold_an_answer_back() {
    let sandbox = Sandbox::new().await;
    let began = Instant::now();
    let result = sandbox.sh("sleep 60 & echo started").await;
    assert_eq!(result["stdout"], "started\n");
    let timed = json!({ "command": "sh", "args": ["-c", "sleep 61 & wait"], "timeoutMs": 300 });
    let (_, result) = sandbox.post("/v1/processes/run", timed).await;
    assert_eq!(
        (result["timedOut"].as_bool(), result["exitCode"].clone()),
        (Some(true), Value::Null)
    );
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    // Its time being over, all of it is.
    assert_eq!(sandbox.sh("pgrep -f 'sleep 6[1]' | wc -l").await["stdout"], "0\n");
    // The Python client's seconds.
    let (_, result) = sandbox
        .post("/v1/processes/run", json!({ "command": "sleep", "args": ["9"], "timeout": 0.2 }))
        .await;
    assert_eq!(result["timedOut"], true);
}

#[tokio::test]
async fn a_run_ends_with_the_client_that_asked_for_it() {
    let sandbox = Sandbox::new().await;
    let pid_file = sandbox.path("pid");
    let body =
        json!({ "command": "sh", "args": ["-c", format!("echo $$ > {pid_file}; sleep 300")] });
    let request = sandbox.request(Method::POST, "/v1/processes/run").json(&body);
    let asked = tokio::time::timeout(Duration::from_millis(700), request.send()).await;
    assert!(asked.is_err());
    let pid: i64 = std::fs::read_to_string(&pid_file).unwrap().trim().parse().unwrap();
    eventually("the run is killed", async || !is_alive(pid)).await;
}

#[tokio::test]
async fn a_long_run_is_kept_alive_by_white_space() {
    let sandbox = Sandbox::new().await;
    let body = json!({ "command": "sleep", "args": ["12"] });
    let began = Instant::now();
    let response =
        sandbox.request(Method::POST, "/v1/processes/run").json(&body).send().await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(11));
    let text = response.text().await.unwrap();
    assert!(text.starts_with(' '));
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["exitCode"], 0);
}

#[tokio::test]
async fn a_stop_reaches_the_whole_group_and_a_kill_what_left_it() {
    let sandbox = Sandbox::new().await;
    let pids = sandbox.path("pids");
    let code = format!(
        "trap '' TERM; (sleep 301 & echo $! >> {pids}; wait) & setsid sleep 302 & echo $! >> {pids}; \
         echo $$ >> {pids}; wait; sleep 303"
    );
    let id = start(&sandbox, &code).await;
    let read = || {
        let text = std::fs::read_to_string(&pids).unwrap_or_default();
        text.lines().map(|line| line.parse::<i64>().unwrap()).collect::<Vec<_>>()
    };
    eventually("it has started all", async || read().len() == 3).await;
    let stop = format!("/v1/processes/{id}/stop?waitMs=200");
    let (_, info) = sandbox.ask(sandbox.request(Method::POST, &stop)).await;
    assert_eq!(info["status"], "running", "it ignores SIGTERM: {info}");
    let (_, info) =
        sandbox.ask(sandbox.request(Method::POST, &format!("/v1/processes/{id}/kill"))).await;
    assert_eq!(
        (info["status"].as_str(), info["signal"].as_i64()),
        (Some("exited"), Some(9)),
        "{info}"
    );
    assert!(info.get("pid").is_none() && info.get("exitCode").is_none(), "{info}");
    eventually("all of it is gone", async || !read().into_iter().any(is_alive)).await;
    // Gone already: told as it is.
    let (status, _) = sandbox.ask(sandbox.request(Method::POST, &stop)).await;
    assert_eq!(status, 200);
    // A signal by name, by number, and one that is none.
    let id = start(&sandbox, "trap 'exit 7' USR1; while :; do sleep 0.05; done").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let (_, info) =
        sandbox.post(&format!("/v1/processes/{id}/kill"), json!({ "signal": "SIGUSR1" })).await;
    assert_eq!(info["exitCode"], 7, "{info}");
    let (status, _) =
        sandbox.post(&format!("/v1/processes/{id}/kill"), json!({ "signal": "SIGNOTHING" })).await;
    assert_eq!(status, 400);
}

#[tokio::test]
async fn the_life_of_a_process_from_its_start_to_being_forgotten() {
    let sandbox = Sandbox::new().await;
    let id = start(&sandbox, "read line; echo got $line; exit 4").await;
    assert_eq!(id, "proc_1");
    let path = format!("/v1/processes/{id}");
    assert_eq!(sandbox.ask(sandbox.request(Method::DELETE, &path)).await.0, 409);
    let input = async |body: Value| sandbox.post(&format!("{path}/input"), body).await;
    assert_eq!(input(json!({ "data": "%%", "encoding": "base64" })).await.0, 400);
    assert_eq!(input(json!({ "data": "x", "encoding": "morse" })).await.0, 400);
    assert_eq!(input(json!({ "data": "x".repeat(70_000), "encoding": "text" })).await.0, 413);
    let (status, answer) = input(json!({ "data": STANDARD.encode("hello\n") })).await;
    assert_eq!((status, answer["bytesWritten"].as_u64()), (200, Some(6)));
    eventually("it has ended", async || {
        sandbox.ask(sandbox.get(&path)).await.1["status"] == "exited"
    })
    .await;
    let (_, info) = sandbox.ask(sandbox.get(&path)).await;
    assert_eq!((info["exitCode"].as_i64(), info["owner"].as_str()), (Some(4), Some("user")));
    let (_, logs) = sandbox.ask(sandbox.get(&format!("{path}/logs"))).await;
    assert_eq!(text(&logs["entries"][0]), "got hello\n");
    assert_eq!(input(json!({ "data": "x" })).await.0, 409);
    assert_eq!(
        sandbox.post(&format!("{path}/terminal/resize"), json!({ "cols": 1, "rows": 1 })).await.0,
        409
    );
    assert_eq!(sandbox.ask(sandbox.request(Method::DELETE, &path)).await.0, 204);
    assert_eq!(sandbox.ask(sandbox.get(&path)).await.0, 404);
    // Text that is no base64 is taken as it is, and the end of an input can be told.
    let id = start(&sandbox, "cat").await;
    let body = json!({ "data": "plain text!\n", "eof": true });
    assert_eq!(sandbox.post(&format!("/v1/processes/{id}/input"), body).await.0, 200);
    let mut events =
        Events::open(sandbox.get(&format!("/v1/processes/{id}/logs?follow=True"))).await;
    assert_eq!(text(&events.next().await.unwrap().data), "plain text!\n");
    assert_eq!(events.next().await.unwrap().name, "exit");
    assert!(events.next().await.is_none(), "a stream ends with its process");
    // In the order of their making, ten after nine.
    for _ in 0..10 {
        start(&sandbox, "true").await;
    }
    let (_, list) = sandbox.ask(sandbox.get("/v1/processes")).await;
    let ids: Vec<&str> = list["processes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["id"].as_str().unwrap())
        .collect();
    assert_eq!(&ids[7..10], ["proc_9", "proc_10", "proc_11"], "{ids:?}");
}

#[tokio::test]
async fn limits_are_read_changed_in_part_and_kept() {
    let mut sandbox = Sandbox::new().await;
    let (_, config) = sandbox.ask(sandbox.get("/v1/processes/config")).await;
    assert_eq!(config["maxConcurrentProcesses"], 64);
    let (status, config) =
        sandbox.post("/v1/processes/config", json!({ "maxConcurrentProcesses": 2 })).await;
    assert_eq!((status, config["maxRunTimeoutMs"].as_u64()), (200, Some(300_000)), "{config}");
    for wrong in [
        json!({ "maxOutputBytes": 0 }),
        json!({ "defaultRunTimeoutMs": 0 }),
        json!({ "maxConcurrentProcesses": 0 }),
    ] {
        assert_eq!(sandbox.post("/v1/processes/config", wrong).await.0, 400);
    }
    let first = start(&sandbox, "sleep 60").await;
    start(&sandbox, "sleep 60").await;
    let (status, problem) = sandbox.post("/v1/processes", json!({ "command": "true" })).await;
    assert_eq!(status, 409, "{problem}");
    sandbox.ask(sandbox.request(Method::POST, &format!("/v1/processes/{first}/kill"))).await;
    start(&sandbox, "true").await;
    sandbox.end(sandbox.keeper(), Signal::TERM).await;
    sandbox.restart().await;
    let (_, config) = sandbox.ask(sandbox.get("/v1/processes/config")).await;
    assert_eq!(config["maxConcurrentProcesses"], 2);
}

/// Checklist F10: floods, tiny writes, and a reader that joins, leaves and comes back.
#[tokio::test]
async fn f10_a_million_lines_are_followed_and_none_is_lost_or_told_twice() {
    let sandbox = Sandbox::new().await;
    // Room for all of it: what is not kept is a gap, which another test looks at.
    sandbox.post("/v1/processes/config", json!({ "maxLogBytesPerProcess": 64 << 20 })).await;
    let id = start(&sandbox, "seq 1 1000000").await;
    let path = format!("/v1/processes/{id}/logs?follow=true");
    let (mut last, mut output) = (0_u64, Vec::new());
    'reading: loop {
        // Every so often the connection is lost.
        let request = sandbox.get(&path).header("last-event-id", last);
        let mut events = Events::open(request).await;
        for _ in 0..100 {
            let event = events.next().await.unwrap();
            match event.name.as_str() {
                "log" => {
                    assert_eq!(event.data["sequence"].as_u64(), event.id);
                    assert_eq!(event.id, Some(last + 1));
                    last += 1;
                    output.extend(STANDARD.decode(event.data["data"].as_str().unwrap()).unwrap());
                }
                "exit" => break 'reading,
                other => panic!("{other}: {}", event.data),
            }
        }
    }
    let lines: Vec<&str> = std::str::from_utf8(&output).unwrap().lines().collect();
    assert_eq!(lines.len(), 1_000_000);
    assert!(lines.iter().enumerate().all(|(at, line)| *line == (at + 1).to_string()));
}

#[tokio::test]
async fn f10_a_slow_follower_is_told_of_its_gap_and_costs_no_memory() {
    let sandbox = Sandbox::new().await;
    sandbox.post("/v1/processes/config", json!({ "maxLogBytesPerProcess": 1 << 20 })).await;
    let id = start(&sandbox, "head -c 300000000 /dev/zero | tr '\\0' x; echo; echo the end").await;
    let before = super::files::memory(&sandbox);
    let mut events =
        Events::open(sandbox.get(&format!("/v1/processes/{id}/logs?follow=true"))).await;
    let first = events.next().await.unwrap();
    eventually("it has written all", async || {
        sandbox.ask(sandbox.get(&format!("/v1/processes/{id}"))).await.1["status"] == "exited"
    })
    .await;
    let grown = super::files::memory(&sandbox).saturating_sub(before);
    assert!(grown < 16 * 1024, "{grown} KiB");
    let (mut next, mut gaps, mut end) = (first.id.unwrap() + 1, 0, String::new());
    while let Some(event) = events.next().await {
        match event.name.as_str() {
            "log" => {
                assert_eq!(event.id, Some(next));
                next += 1;
                end = text(&event.data);
            }
            "gap" => {
                assert_eq!(event.data["from"].as_u64(), Some(next), "{}", event.data);
                next = event.data["to"].as_u64().unwrap() + 1;
                gaps += 1;
            }
            _ => {}
        }
    }
    assert!(gaps > 0 && end.ends_with("the end\n"), "{gaps} {end}");
    // What is kept is the newest, up to the limit.
    let (_, logs) = sandbox.ask(sandbox.get(&format!("/v1/processes/{id}/logs?tail=3"))).await;
    assert_eq!(logs["entries"].as_array().unwrap().len(), 3);
    assert!(text(&logs["entries"][2]).ends_with("the end\n"));
    let (_, logs) = sandbox.ask(sandbox.get(&format!("/v1/processes/{id}/logs?tail=0"))).await;
    assert_eq!(logs["entries"], json!([]));
    let since = next - 2;
    let (_, logs) =
        sandbox.ask(sandbox.get(&format!("/v1/processes/{id}/logs?since={since}"))).await;
    assert_eq!(logs["entries"].as_array().unwrap().len(), 1);
    let (_, logs) =
        sandbox.ask(sandbox.get(&format!("/v1/processes/{id}/logs?stream=stderr"))).await;
    assert_eq!(logs["entries"], json!([]));
}

#[tokio::test]
async fn a_thousand_processes_run_at_once() {
    let sandbox = Sandbox::new().await;
    sandbox.post("/v1/processes/config", json!({ "maxConcurrentProcesses": 1000 })).await;
    let begin = (0..1000)
        .map(|_| sandbox.post("/v1/processes", json!({ "command": "sleep", "args": ["120"] })));
    // As many at once as the tester may have sockets.
    let mut begun = futures_util::stream::iter(begin).buffer_unordered(100);
    let mut started = 0;
    while let Some((status, info)) = begun.next().await {
        assert_eq!(status, 200, "{info}");
        started += 1;
    }
    let (_, list) = sandbox.ask(sandbox.get("/v1/processes")).await;
    let running =
        list["processes"].as_array().unwrap().iter().filter(|one| one["status"] == "running");
    assert_eq!((running.count(), started), (1000, 1000));
    assert_eq!(sandbox.post("/v1/processes", json!({ "command": "true" })).await.0, 409);
}

#[tokio::test]
async fn a_pause_stops_everything_and_a_resume_lets_it_go_on() {
    let sandbox = Sandbox::new().await;
    let id = start(&sandbox, "while :; do echo tick; sleep 0.05; done").await;
    let count = async || {
        let (_, logs) = sandbox.ask(sandbox.get(&format!("/v1/processes/{id}/logs"))).await;
        logs["entries"].as_array().unwrap().len()
    };
    eventually("it ticks", async || count().await > 2).await;
    let (status, answer) = sandbox.post("/v1/sandbox/pause", json!({})).await;
    assert_eq!((status, answer["status"].as_str()), (200, Some("paused")));
    tokio::time::sleep(Duration::from_millis(100)).await;
    let paused = count().await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(count().await, paused);
    sandbox.post("/v1/sandbox/resume", json!({})).await;
    eventually("it goes on", async || count().await > paused).await;
    sandbox.post("/v1/sandbox/restart", json!({})).await;
    let (_, list) = sandbox.ask(sandbox.get("/v1/processes")).await;
    assert_eq!(list["processes"], json!([]));
}

/// Followers hold nothing back, and daemons are found.
#[tokio::test]
async fn a_restart_ends_all_there_is_whoever_looks_on() {
    let sandbox = Sandbox::new().await;
    let ticks = sandbox.path("ticks");
    let daemon = format!(
        "setsid sh -c 'while :; do echo x >> {ticks}; sleep 0.05; done' >/dev/null 2>&1 & exit 0"
    );
    sandbox.sh(&daemon).await;
    let id = start(&sandbox, "while :; do sleep 1; done").await;
    let pid =
        sandbox.ask(sandbox.get(&format!("/v1/processes/{id}"))).await.1["pid"].as_i64().unwrap();
    let mut following =
        Events::open(sandbox.get(&format!("/v1/processes/{id}/logs?follow=true"))).await;
    let size = || std::fs::metadata(&ticks).map_or(0, |about| about.len());
    eventually("the daemon ticks", async || size() > 4).await;
    assert_eq!(sandbox.post("/v1/sandbox/pause", json!({})).await.0, 200);
    tokio::time::sleep(Duration::from_millis(100)).await;
    let paused = size();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(size(), paused, "a daemon goes on while all stand still");
    let restart = sandbox.post("/v1/sandbox/restart", json!({}));
    assert_eq!(tokio::time::timeout(Duration::from_secs(5), restart).await.unwrap().0, 200);
    assert!(!is_alive(pid));
    while following.next().await.is_some() {}
    let ended = size();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(size(), ended, "a daemon outlives a restart");
}

/// A process is killed whole: also what has left its group, its session and its parent.
#[tokio::test]
async fn a_kill_finds_daemons() {
    let sandbox = Sandbox::new().await;
    let pid_file = sandbox.path("daemon");
    let id =
        start(&sandbox, &format!("(setsid sh -c 'echo $$ > {pid_file}; sleep 500' &) ; sleep 600"))
            .await;
    eventually("the daemon runs", async || std::fs::exists(&pid_file).unwrap()).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let daemon: i64 = std::fs::read_to_string(&pid_file).unwrap().trim().parse().unwrap();
    assert!(is_alive(daemon));
    sandbox.ask(sandbox.request(Method::POST, &format!("/v1/processes/{id}/kill"))).await;
    eventually("the daemon is gone", async || !is_alive(daemon)).await;
}
