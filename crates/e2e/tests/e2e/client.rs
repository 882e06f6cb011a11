//! The program as a client of a server.

use std::process::Stdio;

use e2e::house::{As, House, eventually, id};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// What a command said and how it ended.
#[derive(Debug)]
struct Said {
    code: i32,
    stdout: Vec<u8>,
    stderr: String,
}

impl Said {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.stdout).unwrap_or_else(|_| panic!("{self:?}"))
    }
}

async fn client(house: &House, key: &str, words: &[&str], input: &[u8]) -> Said {
    let mut command = Command::new(e2e::program());
    command.args(words).env_clear().env("HOME", "/nonexistent").env("AGENTJAIL_URL", &house.api);
    command.env("AGENTJAIL_KEY", key).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let feed = async {
        drop(stdin.write_all(input).await);
        drop(stdin);
    };
    let (output, ()) = tokio::join!(child.wait_with_output(), feed);
    let output = output.unwrap();
    Said {
        code: output.status.code().unwrap_or(-1),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

#[tokio::test]
async fn a_command_runs_in_a_workspace_as_if_it_ran_here() {
    let house = House::new().await;
    let acme = async |words: &[&str], input: &[u8]| client(&house, "acme-key", words, input).await;
    let made = acme(&["ws", "create", "--label", "cli", "--memory-mb", "256"], b"").await.json();
    let ws = id(&made).to_owned();
    assert_eq!((&made["label"], &made["config"]["memory_mb"]), (&json!("cli"), &json!(256)));
    // Bytes are bytes, both ways, also without a newline at their end.
    let bytes: Vec<u8> = (0..=255).cycle().take(3 << 20).collect();
    let said =
        acme(&["exec", &ws, "--", "sh", "-c", "tee copy | cat; printf err >&2; exit 7"], &bytes)
            .await;
    assert_eq!((said.code, said.stdout == bytes, said.stderr.as_str()), (7, true, "err"));
    let said =
        acme(&["exec", &ws, "--env", "A=b c", "--", "sh", "-c", "echo $A; wc -c < copy"], b"")
            .await;
    assert_eq!(said.text(), format!("b c\n{}\n", 3 << 20));
    let said = acme(&["exec", &ws, "--timeout-secs", "1", "--", "sleep", "60"], b"").await;
    assert!(said.code == 124 && said.stderr.contains("timed out"), "{said:?}");
    // The two dashes may be left out, as with the shell's own words.
    assert_eq!(acme(&["exec", &ws, "echo", "-n", "plain"], b"").await.text(), "plain");
    assert_eq!(acme(&["exec", &ws, "--", "nosuch"], b"").await.code, 127);
    // It is live: what is typed late is heard, and the answer comes before the end.
    let mut command = Command::new(e2e::program());
    command.args([
        "exec",
        &ws,
        "--",
        "sh",
        "-c",
        "echo ready; read x; echo got $x; cat > /dev/null",
    ]);
    command.env_clear().env("AGENTJAIL_URL", &house.api).env("AGENTJAIL_KEY", "acme-key");
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut expect = async |text: &str| {
        let mut seen = vec![0; text.len()];
        tokio::io::AsyncReadExt::read_exact(&mut stdout, &mut seen).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&seen), text);
    };
    expect("ready\n").await;
    stdin.write_all(b"late\n").await.unwrap();
    expect("got late\n").await;
    // Ended here, it ends there.
    child.kill().await.unwrap();
    eventually("nothing runs", async || {
        house.get(As("acme-key"), "/v1/jails?status=running").await.1["total"] == 0
    })
    .await;
    let said = acme(&["exec", "wrk_000000000000000000000000", "--", "true"], b"").await;
    assert!(said.code == 1 && said.stderr.contains("not found: workspace"), "{said:?}");
}

#[tokio::test]
async fn everything_has_a_command() {
    let house = House::new().await;
    let acme = async |words: &[&str]| client(&house, "acme-key", words, b"").await;
    let ws = id(&acme(&["ws", "create"]).await.json()).to_owned();
    acme(&["exec", &ws, "--", "sh", "-c", "echo 1 > a"]).await;
    let first = id(&acme(&["snap", "create", &ws, "--name", "one"]).await.json()).to_owned();
    acme(&["exec", &ws, "--", "sh", "-c", "echo 2 > a; echo b > b"]).await;
    let second = id(&acme(&["snap", "create", &ws]).await.json()).to_owned();
    assert_eq!(
        acme(&["snap", "diff", &first, &second]).await.json()["totals"],
        json!({ "added": 1, "changed": 1, "removed": 0 })
    );
    assert_eq!(acme(&["snap", "ls", "-q", "one"]).await.json()["total"], 1);
    assert_eq!(acme(&["snap", "files", &first]).await.json()[0]["path"], "a");
    assert_eq!(acme(&["snap", "verify", &first]).await.json()["intact"], true);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("it.tar").display().to_string();
    assert_eq!(acme(&["snap", "tar", &first, "-o", &file]).await.code, 0);
    assert!(std::fs::metadata(&file).unwrap().len() > 1024);
    let back = id(&acme(&["snap", "restore", &first, "--label", "back"]).await.json()).to_owned();
    assert_eq!(acme(&["exec", &back, "--", "cat", "a"]).await.text(), "1\n");
    assert_eq!(acme(&["ws", "fork", &ws, "-n", "3"]).await.json().as_array().unwrap().len(), 3);
    assert_eq!(acme(&["ws", "rename", &ws, "new name"]).await.json()["label"], "new name");
    assert_eq!(acme(&["ws", "restore", &ws, &first]).await.code, 0);
    assert_eq!(acme(&["ws", "ls", "-q", "NEW"]).await.json()["total"], 1);
    assert_eq!(acme(&["ws", "rm", &ws, &back]).await.code, 0);
    assert_eq!(acme(&["snap", "rm", &second]).await.code, 0);
    let put = client(&house, "acme-key", &["cred", "put", "openai"], b"sk-from-stdin\n").await;
    assert_eq!(put.json()["service"], "openai");
    assert_eq!(acme(&["cred", "ls"]).await.json().as_array().unwrap().len(), 1);
    let session =
        acme(&["session", "create", "openai", "--scope", "openai=/v1/chat/*"]).await.json();
    assert!(session["env"]["OPENAI_API_KEY"].as_str().unwrap().starts_with("phm_"));
    assert_eq!(acme(&["session", "close", id(&session)]).await.code, 0);
    assert_eq!(acme(&["cred", "rm", "openai"]).await.code, 0);
    let jails = acme(&["jails", "ls", "--kind", "workspace"]).await.json();
    let number = jails["rows"][0]["id"].to_string();
    assert_eq!(acme(&["jails", "show", &number]).await.json()["kind"], "workspace");
    assert_eq!(acme(&["audit"]).await.json()["total"], 0);
    let made =
        client(&house, "root-key", &["keys", "create", "--tenant", "acme", "--label", "x"], b"")
            .await
            .json();
    assert_eq!(client(&house, made["key"].as_str().unwrap(), &["ws", "ls"], b"").await.code, 0);
    assert_eq!(client(&house, "root-key", &["keys", "revoke", id(&made)], b"").await.code, 0);
    for (words, says) in [
        (vec!["keys", "ls"], "no such route"),
        (vec!["ws", "show", "../../healthz"], "is not an id"),
        (vec!["ws", "ls", "--url", "http://127.0.0.1:1"], "is `agentjail serve` running?"),
        (vec!["ws", "ls", "--key", "wrong"], "invalid api key (see --key)"),
        (vec!["ws", "create", "--domain", "x"], "write NAME=PORT"),
    ] {
        let said = acme(&words).await;
        assert!(said.code == 1 && said.stderr.contains(says), "{words:?}: {said:?}");
    }
}

#[tokio::test]
async fn a_backup_taken_at_work_is_a_state_to_start_from() {
    let mut house = House::new().await;
    let session = house.session("openai").await;
    let (idle, busy) = (house.workspace(json!({})).await, house.workspace(json!({})).await);
    house.says(&idle, "echo sealed > a").await;
    let snapshot = house.snapshot(&idle, "s").await;
    house.says(&idle, "echo written > b").await;
    let path = format!("/v1/workspaces/{}/exec/stream", id(&busy));
    let body = json!({ "cmd": "sh", "args": ["-c", "echo begun > a; echo ready; sleep 30"] });
    let mut stream = house
        .request(As("acme-key"), reqwest::Method::POST, &path)
        .json(&body)
        .send()
        .await
        .unwrap();
    let mut seen = String::new();
    while !seen.contains("ready") {
        seen.push_str(&String::from_utf8_lossy(&stream.chunk().await.unwrap().unwrap()));
    }
    let copy = house.state.path().join("copy");
    let to = copy.display().to_string();
    for (key, says) in [("acme-key", "no such route"), ("root-key", "")] {
        let said = client(&house, key, &["backup", "--to", &to], b"").await;
        assert!(said.stderr.contains(says) && (said.code == 0) == says.is_empty(), "{said:?}");
    }
    let again = client(&house, "root-key", &["backup", "--to", &to], b"").await;
    assert!(again.code == 1 && again.stderr.contains("something is there already"), "{again:?}");
    assert!(!copy.join("master.key").exists());
    drop(stream);
    // The state is lost, and the copy takes its place.
    house.end(Signal::KILL).await;
    let state = house.state.path().join("state");
    std::fs::copy(state.join("master.key"), copy.join("master.key")).unwrap();
    std::fs::remove_dir_all(&state).unwrap();
    std::fs::rename(&copy, &state).unwrap();
    house.restart().await;
    assert_eq!(house.says(&idle, "cat a b").await, "sealed\nwritten\n");
    assert_eq!(house.says(&busy, "cat a").await, "begun\n");
    assert_eq!(house.says(&house.restored(&snapshot).await, "ls").await, "a\n");
    let (_, verified) = house
        .post(As("acme-key"), &format!("/v1/snapshots/{}/verify", id(&snapshot)), json!({}))
        .await;
    assert_eq!(verified["intact"], true);
    assert_eq!(house.get(As("acme-key"), "/v1/sessions").await.1, json!([session]));
}
