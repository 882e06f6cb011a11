//! The server killed at any moment: no orphan, no torn file, and nothing lost that was acknowledged.

use std::time::Duration;

use e2e::house::eventually;
use e2e::sandbox::{Events, Sandbox, is_alive};
use reqwest::Method;
use rustix::process::Signal;
use serde_json::json;

/// Processes that hold out against a polite end, in groups and sessions of their own.
const STUBBORN: &str = "trap '' TERM HUP INT; setsid sh -c \"trap '' TERM; sleep 400 & echo \\$! >> pids; wait\" & \
    sleep 401 & echo $! >> pids; echo $$ >> pids; wait; sleep 402";

async fn stubborn(sandbox: &Sandbox) -> Vec<i64> {
    let body = json!({ "command": "sh", "args": ["-c", STUBBORN] });
    assert_eq!(sandbox.post("/v1/processes", body).await.0, 200);
    let tty = json!({ "command": "sh", "args": ["-c", "echo $$ >> pids; sleep 403"], "tty": true });
    assert_eq!(sandbox.post("/v1/processes", tty).await.0, 200);
    let mock = sandbox.session("agent").await;
    assert!(!mock.is_empty());
    let read = || {
        let text = std::fs::read_to_string(sandbox.path("pids")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse::<i64>().ok()).collect::<Vec<_>>()
    };
    eventually("all have started", async || read().len() == 4).await;
    let mut pids = read();
    let server = sandbox.server().as_raw_nonzero();
    let children =
        std::fs::read_to_string(format!("/proc/{server}/task/{server}/children")).unwrap();
    pids.extend(children.split_ascii_whitespace().map(|pid| pid.parse::<i64>().unwrap()));
    pids.push(i64::from(server.get()));
    pids
}

#[tokio::test]
async fn however_the_server_ends_nothing_is_left_of_what_it_started() {
    for (case, signal) in [
        ("keeper", Signal::TERM),
        ("keeper", Signal::KILL),
        ("server", Signal::KILL),
        ("keeper", Signal::INT),
    ] {
        let mut sandbox = Sandbox::new().await;
        let pids = stubborn(&sandbox).await;
        assert!(pids.iter().all(|pid| is_alive(*pid)), "{pids:?}");
        let whom = if case == "server" { sandbox.server() } else { sandbox.keeper() };
        sandbox.end(whom, signal).await;
        eventually("nothing is left", async || !pids.iter().any(|pid| is_alive(*pid))).await;
    }
}

#[tokio::test]
async fn a_polite_end_takes_no_longer_than_its_grace() {
    let mut sandbox = Sandbox::with(&["--grace-secs", "1"], &[]).await;
    let mut events = Events::open(sandbox.get("/v1/acp/nobody")).await;
    let began = std::time::Instant::now();
    assert_eq!(sandbox.end(sandbox.keeper(), Signal::INT).await, Some(0));
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    assert!(events.next().await.is_none());
}

/// Writes under way while the server is killed: each file is as it was, or as it was to be.
#[tokio::test]
async fn a_kill_leaves_no_torn_file() {
    let mut sandbox = Sandbox::new().await;
    let (old, new) = ("old ".repeat(250_000), "new!".repeat(250_000));
    for round in 0..12_u64 {
        for number in 0..4 {
            std::fs::write(sandbox.path(&format!("file{number}")), &old).unwrap();
        }
        let writes = (0..4).map(|number| {
            let pieces: Vec<Result<Vec<u8>, std::io::Error>> =
                new.as_bytes().chunks(100_000).map(|piece| Ok(piece.to_vec())).collect();
            let body = reqwest::Body::wrap_stream(futures_util::stream::iter(pieces));
            sandbox
                .request(Method::PUT, &format!("/v1/fs/file?path=file{number}"))
                .body(body)
                .send()
        });
        let server = sandbox.server();
        let kill = async {
            tokio::time::sleep(Duration::from_millis(round * 2)).await;
            rustix::process::kill_process(server, Signal::KILL).unwrap();
        };
        let (answers, ()) = tokio::join!(futures_util::future::join_all(writes), kill);
        for (number, answer) in answers.into_iter().enumerate() {
            let content = std::fs::read_to_string(sandbox.path(&format!("file{number}"))).unwrap();
            assert!(content == old || content == new, "{}", content.len());
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                assert!(content == new, "an acknowledged write is lost");
            }
        }
        sandbox.end(sandbox.keeper(), Signal::KILL).await;
        sandbox.restart().await;
    }
    let left: Vec<String> = std::fs::read_dir(sandbox.path(""))
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.contains("partial"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

/// What a client has seen of a session is there after a kill, under the same numbers, and the session goes on.
#[tokio::test]
async fn no_event_that_was_seen_is_lost_by_a_kill() {
    let mut sandbox = Sandbox::new().await;
    let session = sandbox.session("s").await;
    let mut known: Vec<(u64, serde_json::Value)> = Vec::new();
    for round in 0..6_u64 {
        let mut events =
            Events::open(sandbox.get("/v1/acp/s").header("last-event-id", known.len())).await;
        let words = "word ".repeat(400);
        let server = sandbox.server();
        let prompt = sandbox.prompt("s", &session, &words);
        let kill = async {
            tokio::time::sleep(Duration::from_millis(3 + 7 * round)).await;
            rustix::process::kill_process(server, Signal::KILL).unwrap();
        };
        let read = async {
            while let Some(event) = events.next().await {
                assert_eq!(event.id, Some(known.len() as u64 + 1));
                known.push((event.id.unwrap(), event.data));
            }
        };
        // The prompt itself fails with its server.
        let asked = tokio::time::timeout(Duration::from_secs(1), async {
            let client = sandbox.client.clone();
            drop(prompt);
            let body = json!({ "jsonrpc": "2.0", "id": round, "method": "session/prompt",
                "params": { "sessionId": session, "prompt": [{ "type": "text", "text": words }] } });
            let request =
                client.post(format!("{}/v1/acp/s", sandbox.url)).bearer_auth(e2e::sandbox::TOKEN);
            drop(request.json(&body).send().await);
        });
        let (_, (), ()) = tokio::join!(asked, kill, read);
        sandbox.end(sandbox.keeper(), Signal::KILL).await;
        sandbox.restart().await;
        let mut again = Events::open(sandbox.get("/v1/acp/s")).await;
        for (id, data) in &known {
            let event = again.next().await.unwrap();
            assert_eq!((event.id, &event.data), (Some(*id), data));
        }
        // Whatever else was kept, but not seen, follows.
        let (_, latest) = sandbox.ask(sandbox.get(&format!("/v1/sessions/{session}"))).await;
        assert_eq!(latest["id"], session.as_str(), "{latest}");
        let (status, answer) = sandbox.prompt("s", &session, "hello").await;
        assert_eq!(
            (status, answer["result"]["stopReason"].as_str()),
            (200, Some("end_turn")),
            "{answer}"
        );
        let ended = again.until(|event| event.data["id"] == "p").await;
        for event in ended {
            if event.id.unwrap() > known.len() as u64 {
                known.push((event.id.unwrap(), event.data));
            }
        }
    }
}
