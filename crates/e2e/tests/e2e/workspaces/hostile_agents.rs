//! What whoever runs in an agent's jail, or asks for one, must not be able to do to others.

use std::time::{Duration, Instant};

use e2e::house::{As, House, answer, eventually, id};
use e2e::inhabitant::{ACME, Agent, patch, processes, state};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const GLOBEX: As<'_> = As("globex-key");

/// Stops the keeper and the server of the jail a command joins.
const STOP: &str = "kill -STOP 2; kill -STOP 3";

async fn start_as(house: &House, who: As<'_>, workspace: &Value, body: Value) -> (u16, Value) {
    house.post(who, &format!("/v1/workspaces/{}/agent", id(workspace)), body).await
}

async fn workspace_of(house: &House, who: As<'_>, body: Value) -> Value {
    let (status, made) = house.post(who, "/v1/workspaces", body).await;
    assert_eq!(status, 201, "{made}");
    made
}

/// Sends a request and hangs up before it is answered.
async fn hang_up(house: &House, path: &str, body: &Value, after: Duration) {
    let address = house.api.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).await.unwrap();
    let body = body.to_string();
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer acme-key\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    tokio::time::sleep(after).await;
}

#[tokio::test]
async fn agents_take_no_place_of_commands_and_no_tenant_takes_all_of_theirs() {
    let house =
        House::with(&["--max-concurrent", "1", "--max-agents", "3", "--quota-agents", "2"]).await;
    let mut made = Vec::new();
    for _ in 0..3 {
        made.push(house.workspace(json!({})).await);
    }
    for workspace in &made[..2] {
        Agent::start(&house, workspace, json!({})).await;
        assert_eq!(patch(&house, workspace, "paused").await.0, 200);
    }
    let (status, error) = start_as(&house, ACME, &made[2], json!({})).await;
    assert_eq!(status, 429, "{error}");
    assert!(error["error"].as_str().unwrap().contains("quota of agents: 2"), "{error}");
    assert_eq!(house.says(&made[2], "echo free").await, "free\n");
    let theirs = workspace_of(&house, GLOBEX, json!({})).await;
    assert_eq!(start_as(&house, GLOBEX, &theirs, json!({})).await.0, 201);
    let more = workspace_of(&house, GLOBEX, json!({})).await;
    let (status, error) = start_as(&house, GLOBEX, &more, json!({})).await;
    assert_eq!(status, 429);
    assert!(error["error"].as_str().unwrap().contains("--max-agents"), "{error}");
    // An end makes room.
    assert_eq!(patch(&house, &made[0], "ended").await.0, 200);
    assert_eq!(start_as(&house, ACME, &made[2], json!({})).await.0, 201);
}

#[tokio::test]
async fn one_that_a_command_or_a_preview_woke_is_not_called_paused() {
    let house = House::with(&["--idle-check-interval-secs", "1"]).await;
    let made = house.workspace(json!({ "idle_timeout_secs": 2 })).await;
    Agent::start(&house, &made, json!({})).await;
    let preview = format!("/v1/workspaces/{}/ports/9/", id(&made));
    for by_command in [true, false] {
        assert_eq!(patch(&house, &made, "paused").await.1["state"], "paused");
        if by_command {
            assert_eq!(house.says(&made, "echo up").await, "up\n");
        } else {
            assert_eq!(house.get(ACME, &preview).await.0, 409);
        }
        assert_eq!(state(&house, &made).await["state"], "running", "by a command: {by_command}");
        eventually("it is paused again", async || state(&house, &made).await["state"] == "paused")
            .await;
        let row = house.get(ACME, &format!("/v1/workspaces/{}", id(&made))).await.1;
        assert!(row["paused_at"].is_string(), "{row}");
    }
}

#[tokio::test]
async fn one_that_hangs_keeps_neither_others_from_their_pause_nor_its_own_end() {
    let house = House::with(&["--idle-check-interval-secs", "1"]).await;
    let mut hung = Vec::new();
    for _ in 0..4 {
        let made = house.workspace(json!({ "idle_timeout_secs": 1 })).await;
        let agent = Agent::start(&house, &made, json!({})).await;
        house.in_workspace(&made, STOP).await;
        hung.push((made, agent));
    }
    let theirs = workspace_of(&house, GLOBEX, json!({ "idle_timeout_secs": 1 })).await;
    assert_eq!(start_as(&house, GLOBEX, &theirs, json!({})).await.0, 201);
    let path = format!("/v1/workspaces/{}/agent", id(&theirs));
    let began = Instant::now();
    eventually("it is paused", async || house.get(GLOBEX, &path).await.1["state"] == "paused")
        .await;
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    // Whoever waits for one that hangs does not make its end wait.
    let (made, agent) = &hung[0];
    let mut asked = tokio::task::JoinSet::new();
    for _ in 0..12 {
        asked.spawn(agent.request(&house, Method::GET, "/v1/health").send());
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let path = format!("/v1/workspaces/{}/agent", id(made));
    let began = Instant::now();
    assert_eq!(house.delete(ACME, &path).await.0, 204);
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    while let Some(asked) = asked.join_next().await {
        assert!(asked.unwrap().map_or(true, |answer| answer.status() != 200));
    }
    // And it can be ended and gone on with.
    let (made, agent) = &hung[1];
    assert_eq!(patch(&house, made, "ended").await.0, 200);
    assert_eq!(state(&house, made).await["ended"], Value::Null, "by us, not by itself");
    assert_eq!(agent.get(&house, "/v1/health").await.0, 200);
}

#[tokio::test]
async fn of_what_nobody_waits_for_nothing_stays() {
    let house = House::new().await;
    house.session("openai").await;
    let made = house.workspace(json!({})).await;
    Agent::start(&house, &made, json!({ "services": ["openai"] })).await;
    let fork = format!("/v1/workspaces/{}/fork", id(&made));
    let count = async |of: &str| {
        let answer = house.get(ACME, of).await.1;
        answer["total"].as_u64().unwrap_or_else(|| answer.as_array().map_or(0, Vec::len) as u64)
    };
    let before =
        [count("/v1/workspaces").await, count("/v1/sessions").await, count("/v1/snapshots").await];
    let settled = async || {
        let now = [
            count("/v1/workspaces").await,
            count("/v1/sessions").await,
            count("/v1/snapshots").await,
        ];
        now == before && processes(&house, "agent server").len() == 2
    };
    for after in [5, 20, 60] {
        let body = json!({ "count": 2, "agent": {} });
        hang_up(&house, &fork, &body, Duration::from_millis(after)).await;
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    eventually("forks that nobody heard of are gone", settled).await;
    let (status, error) =
        house.post(ACME, &fork, json!({ "count": 2, "agent": { "agents": ["none"] } })).await;
    assert_eq!(status, 400, "{error}");
    assert!(settled().await, "what fails leaves nothing, its snapshot neither");
    let other = house.workspace(json!({})).await;
    let path = format!("/v1/workspaces/{}/agent", id(&other));
    hang_up(&house, &path, &json!({ "services": ["openai"] }), Duration::from_millis(5)).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    eventually("its agent is gone", async || house.get(ACME, &path).await.0 == 404).await;
    house.delete(ACME, &format!("/v1/workspaces/{}", id(&other))).await;
    eventually("and its session", settled).await;
}

#[tokio::test]
async fn a_session_that_ended_is_told_with_the_remedy_and_one_of_an_agent_is_not_shared() {
    let house = House::new().await;
    house.session("openai").await;
    let made = house.workspace(json!({})).await;
    let agent = Agent::start(&house, &made, json!({ "services": ["openai"] })).await;
    let other = house.workspace(json!({})).await;
    let path = format!("/v1/workspaces/{}/agent", id(&other));
    let (status, error) = house.post(ACME, &path, json!({ "session_id": agent.session })).await;
    assert_eq!(status, 400, "{error}");
    assert!(error["error"].as_str().unwrap().contains("session_id"), "{error}");
    let session = format!("/v1/sessions/{}", agent.session.as_str().unwrap());
    assert_eq!(house.delete(ACME, &session).await.0, 204);
    assert_eq!(patch(&house, &made, "ended").await.0, 200);
    let (status, error) = agent.get(&house, "/v1/health").await;
    assert_eq!(status, 409, "{error}");
    assert!(error["error"].as_str().unwrap().contains("DELETE"), "{error}");
    let brief = house.session_with(json!({ "services": ["openai"], "ttl_secs": 1 })).await;
    tokio::time::sleep(Duration::from_millis(1200)).await;
    let (status, error) = house.post(ACME, &path, json!({ "session_id": brief["id"] })).await;
    assert_eq!(status, 400, "{error}");
    let text = error["error"].as_str().unwrap();
    assert!(text.contains("session_id") && text.contains("expired"), "{error}");
}

#[tokio::test]
async fn its_own_variables_and_flags_cannot_be_set_from_outside() {
    let house = House::new().await;
    let made = house.workspace(json!({})).await;
    let long = "x".repeat(200_000);
    for name in [
        "SANDBOX_AGENT_TOKEN",
        "SANDBOX_AGENT_STATE_DIR",
        "HOME",
        "--no-token",
        "-n",
        "A\nB",
        "",
        "1A",
    ] {
        let (status, error) =
            start_as(&house, ACME, &made, json!({ "env": [["OK", "1"], [name, "x"]] })).await;
        assert_eq!(status, 400, "{name}: {error}");
        assert!(error["error"].as_str().unwrap().contains("env[1]"), "{name}: {error}");
    }
    let (status, _) = start_as(&house, ACME, &made, json!({ "env": [["LONG", long]] })).await;
    assert_eq!(status, 400);
    for (field, value) in [("max_pids", 3), ("memory_mb", 8), ("cpu_percent", 0)] {
        let (status, error) = start_as(&house, ACME, &made, json!({ field: value })).await;
        assert_eq!(status, 400, "{field}: {error}");
        assert!(error["error"].as_str().unwrap().contains(field), "{field}: {error}");
    }
    let agent = Agent::start(&house, &made, json!({ "env": [["GREETING", "hello"]] })).await;
    assert_eq!(agent.sh(&house, "echo $GREETING$SANDBOX_AGENT_TOKEN").await, "hello\n");
}

/// Answers one request a connection with what stands in `/workspace/answer`, in the agent's place.
const IMPOSTOR: &str = r#"
import os, signal, socket, time
# The keeper goes on only when there is somebody in the server's place.
os.kill(2, signal.SIGSTOP); os.kill(3, signal.SIGKILL)
while True:
    try:
        s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(("127.0.0.1", 2468)); break
    except OSError:
        time.sleep(0.01)
s.listen(16)
open("/workspace/ready", "w").close()
while True:
    c, _ = s.accept()
    heard = b""
    while b"\r\n\r\n" not in heard:
        more = c.recv(65536)
        if not more: break
        heard += more
    open("/workspace/heard", "ab").write(heard)
    c.sendall(open("/workspace/answer", "rb").read())
    c.close()
"#;

#[tokio::test]
async fn whoever_takes_its_place_speaks_for_nobody_and_hears_nothing() {
    let house = House::new().await;
    let made = house.workspace(json!({})).await;
    let agent = Agent::start(&house, &made, json!({})).await;
    let said = "HTTP/1.1 401 No\r\nnel: {}\r\nreport-to: {}\r\nwww-authenticate: Basic realm=x\r\n\
        content-security-policy-report-only: default-src x\r\naccept-ch: x\r\nset-cookie: a=b\r\n\
        strict-transport-security: max-age=1\r\nspeculation-rules: \"x\"\r\nx-mine: yes\r\n\
        content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n";
    let upload =
        agent.request(&house, Method::PUT, "/v1/fs/file?path=/workspace/answer").body(said);
    assert_eq!(upload.send().await.unwrap().status(), 200);
    let path = format!("/v1/workspaces/{}/exec", id(&made));
    let body = json!({ "cmd": "python3", "args": ["-c", IMPOSTOR] });
    let mut impostor = tokio::task::JoinSet::new();
    impostor.spawn(house.request(ACME, Method::POST, &path).json(&body).send());
    let file = |name: &str| {
        let found = house.trees().into_iter().map(|tree| tree.join("files/workspace").join(name));
        found.into_iter().find(|path| path.exists())
    };
    eventually("it took the place", async || file("ready").is_some()).await;
    let asked = agent
        .request(&house, Method::GET, &format!("/x?access%5Ftoken={}&b=1", agent.token))
        .header("referer", format!("{}/ui/?access_token={}", agent.url, agent.token))
        .header("cookie", "c=secret")
        .send()
        .await
        .unwrap();
    assert_eq!(asked.status(), 401);
    let headers = asked.headers().clone();
    for name in [
        "nel",
        "report-to",
        "www-authenticate",
        "content-security-policy-report-only",
        "accept-ch",
        "set-cookie",
        "strict-transport-security",
        "speculation-rules",
    ] {
        assert!(!headers.contains_key(name), "{name}");
    }
    assert_eq!(headers["x-mine"], "yes");
    assert_eq!(headers["referrer-policy"], "no-referrer");
    assert_eq!(asked.text().await.unwrap(), "hi");
    let heard = std::fs::read_to_string(file("heard").unwrap()).unwrap();
    assert!(heard.contains("GET /x?b=1"), "{heard}");
    assert!(!heard.contains(&agent.token) && !heard.contains("secret"), "{heard}");
    // A change of protocol that nobody asked for.
    let path = file("answer").unwrap();
    std::fs::write(
        path,
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: evil\r\nconnection: upgrade\r\n\r\n",
    )
    .unwrap();
    assert_eq!(agent.request(&house, Method::GET, "/x").send().await.unwrap().status(), 502);
    for method in ["CONNECT", "TRACE"] {
        let address = house.api.trim_start_matches("http://");
        let mut stream = TcpStream::connect(address).await.unwrap();
        let path = format!("/v1/workspaces/{}/agent/x", id(&made));
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\nconnection: close\r\n\r\n",
            agent.token
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        drop(
            tokio::time::timeout(Duration::from_secs(5), stream.read_to_string(&mut answer)).await,
        );
        assert!(answer.starts_with("HTTP/1.1 4"), "{method}: {answer}");
    }
    assert_eq!(patch(&house, &made, "ended").await.0, 200);
    let (status, health) =
        answer(agent.request(&house, Method::GET, "/v1/health").send().await.unwrap()).await;
    assert_eq!(status, 200, "{health}");
}

#[tokio::test]
async fn a_pause_keeps_one_copy_and_whoever_asks_meanwhile_is_served() {
    let house = House::new().await;
    let made = house.workspace(json!({})).await;
    let agent = Agent::start(&house, &made, json!({})).await;
    agent.sh(&house, "head -c 300000000 /dev/urandom > /workspace/large").await;
    let autos = async || {
        let path = format!("/v1/snapshots?workspace_id={}", id(&made));
        house.get(ACME, &path).await.1["rows"].as_array().unwrap().len()
    };
    for _ in 0..3 {
        let path = format!("/v1/workspaces/{}/agent", id(&made));
        let body = json!({ "state": "paused" });
        let pausing = house.request(ACME, Method::PATCH, &path).json(&body).send();
        let asking = async {
            let began = Instant::now();
            tokio::time::sleep(Duration::from_millis(20)).await;
            let (status, _) = agent.get(&house, "/v1/health").await;
            (status, began.elapsed())
        };
        let (paused, (status, took)) = tokio::join!(pausing, asking);
        assert_eq!(paused.unwrap().status(), 200);
        assert_eq!(status, 200);
        assert!(took < Duration::from_secs(5), "{took:?}");
        assert_eq!(patch(&house, &made, "paused").await.1["state"], "paused");
        assert_eq!(autos().await, 1, "the last one is enough");
        assert_eq!(patch(&house, &made, "running").await.1["state"], "running");
    }
    assert_eq!(agent.sh(&house, "stat -c %s /workspace/large").await, "300000000\n");
}

#[tokio::test]
async fn what_a_command_leaves_behind_ends_with_it_and_what_the_agent_started_does_not() {
    let house = House::new().await;
    let made = house.workspace(json!({})).await;
    let agent = Agent::start(&house, &made, json!({})).await;
    agent.sh(&house, "setsid sh -c 'sleep 4321 & sleep 4322' >/dev/null 2>&1 &").await;
    // Out of its session, and an orphan; and one that keeps its own orphans.
    let script = "(setsid sh -c 'setsid sleep 1234 & setsid sleep 1235 &') >/dev/null 2>&1 & sleep 0.2; echo done";
    assert_eq!(house.says(&made, script).await, "done\n");
    assert!(processes(&house, "sleep 123").is_empty(), "they ended with the command");
    assert_eq!(processes(&house, "sleep 432").len(), 3, "the agent's are there: a shell and two");
    assert_eq!(agent.get(&house, "/v1/health").await.0, 200);
}

#[tokio::test]
async fn a_web_socket_that_the_jail_never_closes_is_not_kept() {
    let house = House::new().await;
    let made = house.workspace(json!({ "network": { "mode": "loopback" } })).await;
    let server = "import socket\ns = socket.socket(); s.bind(('127.0.0.1', 9000)); s.listen(64)\nkept = []\n\
        print('up', flush=True)\nwhile True:\n    c, _ = s.accept(); c.recv(65536); kept.append(c)\n    \
        c.sendall(b'HTTP/1.1 101 S\\r\\nupgrade: websocket\\r\\nconnection: upgrade\\r\\n\\r\\n')\n";
    let path = format!("/v1/workspaces/{}/exec", id(&made));
    let body = json!({ "cmd": "python3", "args": ["-c", server] });
    let mut running = tokio::task::JoinSet::new();
    running.spawn(house.request(ACME, Method::POST, &path).json(&body).send());
    let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", house.pid())).unwrap().count();
    let upgrade = async || {
        let mut stream = TcpStream::connect(house.api.trim_start_matches("http://")).await.unwrap();
        let request = format!(
            "GET /v1/workspaces/{}/ports/9000/ HTTP/1.1\r\nhost: x\r\nauthorization: Bearer acme-key\r\n\
             connection: upgrade\r\nupgrade: websocket\r\n\r\n",
            id(&made)
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.is_ok() && &answer == b"HTTP/1.1 101"
    };
    eventually("it listens", upgrade).await;
    let before = descriptors();
    for _ in 0..20 {
        assert!(upgrade().await);
    }
    // Within the time that the other side is given to say the rest.
    tokio::time::sleep(Duration::from_secs(11)).await;
    // Of twenty; the directories of six hierarchies' counters may have been opened meanwhile.
    eventually("they are gone", async || descriptors() <= before + 6).await;
}
