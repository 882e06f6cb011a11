//! Agent sessions: the built-in agent, and agents that misbehave.

use std::time::{Duration, Instant};

use e2e::house::eventually;
use e2e::sandbox::{Events, Sandbox, is_alive};
use reqwest::Method;
use serde_json::{Value, json};

/// An agent in Python: it answers `initialize` and `session/new`, and does with a prompt what its text says.
const ODD: &str = r#"#!/usr/bin/python3
import json, os, signal, subprocess, sys, time
def send(message):
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()
def raw(data):
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
if os.path.exists("dies"):
    sys.stderr.write("dying at once\n")
    sys.exit(9)
for line in sys.stdin:
    message = json.loads(line)
    method, id = message.get("method"), message.get("id")
    if method == "initialize":
        send({"id": id, "result": {"protocolVersion": 1, "agentCapabilities": {}}})
    elif method == "session/new":
        open("params.json", "w").write(json.dumps(message["params"]))
        open("env.json", "w").write(json.dumps(dict(os.environ)))
        send({"id": id, "result": {"sessionId": os.environ.get("OWN_NAME", "odd-1")}})
    elif method == "slow":
        time.sleep(message["params"]["seconds"])
        send({"id": id, "result": {"slept": True}})
    elif method == "swap":
        other = json.loads(sys.stdin.readline())
        send({"id": other["id"], "result": {"mine": other["params"]}})
        send({"id": id, "result": {"mine": message["params"]}})
    elif method == "session/prompt":
        text = message["params"]["prompt"][0]["text"]
        if text == "garbage":
            raw(b"this is no JSON\n" + b"\xff\xfe\x80 invalid\n" + b'{"half": \n' + "\u00fc".encode() * 150 + b"\n[1]\n\n")
        elif text == "long":
            for _ in range(20):
                raw(b"x" * (1 << 20))
            raw(b"\n")
        elif text == "gigabyte":
            for _ in range(1024):
                raw(b"x" * (1 << 20))
            raw(b"\n")
        elif text == "flood":
            for number in range(20000):
                send({"method": "session/update", "params": {"sessionId": "odd-1", "update": {"n": number}}})
        elif text == "close":
            os.close(1)
            time.sleep(600)
        elif text == "die":
            sys.stderr.write("the last words\n")
            sys.exit(41)
        elif text == "deaf":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            child = subprocess.Popen(["sh", "-c", "trap '' TERM; sleep 500"], start_new_session=True)
            open("child", "w").write(str(child.pid))
            send({"id": id, "result": {"stopReason": "end_turn"}})
            while True:
                time.sleep(60)
        send({"id": id, "result": {"stopReason": "end_turn"}})
"#;

async fn odd(sandbox: &Sandbox) {
    sandbox.put_agent("claude", ODD);
    let (status, answer) = sandbox
        .acp("odd", Some("claude"), json!({ "id": 0, "method": "initialize", "params": {} }))
        .await;
    assert_eq!(status, 200, "{answer}");
    let new = json!({ "id": 1, "method": "session/new", "params": { "cwd": sandbox.path("") } });
    assert_eq!(sandbox.acp("odd", None, new).await.1["result"]["sessionId"], "odd-1");
}

/// The Python client tells the name of a session by asking for it. Who deletes one must know it.
#[tokio::test]
async fn a_name_is_given_by_a_question_and_never_by_a_deletion() {
    let sandbox = Sandbox::new().await;
    let open = json!({ "id": 0, "method": "initialize", "params": {} });
    assert_eq!(sandbox.acp("default", None, open).await.0, 200);
    let create = json!({ "id": 1, "method": "session/create", "params": { "agent": "mock" } });
    let (_, created) = sandbox.acp("default", None, create).await;
    let name = "5b0e7a5c-3d5e-4a8e-9c55-0d1f6a7b8c9d";
    let session = |name: &str| format!("/v1/sessions/{name}");
    let delete = sandbox.request(Method::DELETE, &session(name));
    assert_eq!(sandbox.ask(delete).await.0, 404);
    assert_eq!(sandbox.ask(sandbox.get(&session("nobody"))).await.0, 404);
    let (status, record) = sandbox.ask(sandbox.get(&session(name))).await;
    assert_eq!((status, &record["destroyedAt"]), (200, &Value::Null), "{record}");
    assert_eq!(record["agentSessionId"], created["result"]["sessionId"]);
    let other = sandbox.get(&session("00000000-0000-4000-8000-000000000002"));
    assert_eq!(sandbox.ask(other).await.0, 404, "it has a name by now");
    assert_eq!(sandbox.ask(sandbox.request(Method::DELETE, &session(name))).await.0, 204);
}

/// An environment of its own means a process of its own; no other sees it, and no disk keeps it.
#[tokio::test]
async fn a_session_may_have_an_environment_of_its_own() {
    let sandbox = Sandbox::new().await;
    odd(&sandbox).await;
    let env = json!({ "OWN_NAME": "odd-own", "OWN_KEY": "phm_onlyforthisone" });
    let params = json!({ "cwd": sandbox.path(""), "_meta": { "env": env, "kept": 1 } });
    let new = |params: &Value| json!({ "id": 2, "method": "session/new", "params": params });
    let (status, answer) = sandbox.acp("odd", None, new(&params)).await;
    assert_eq!((status, answer["result"]["sessionId"].as_str()), (200, Some("odd-own")));
    let written = |name: &str| {
        let text = std::fs::read(sandbox.path(name)).unwrap();
        serde_json::from_slice::<Value>(&text).unwrap()
    };
    assert_eq!(written("env.json")["OWN_KEY"], "phm_onlyforthisone");
    assert_eq!(written("params.json")["_meta"], json!({ "kept": 1 }));
    // Its prompts reach it, and those of the others still the others.
    assert_eq!(sandbox.prompt("odd", "odd-own", "die").await.0, 500);
    let (_, answer) = sandbox.prompt("odd", "odd-1", "hi").await;
    assert_eq!(answer["result"]["stopReason"], "end_turn");
    let plain = json!({ "cwd": sandbox.path("") });
    assert_eq!(sandbox.acp("odd", None, new(&plain)).await.1["result"]["sessionId"], "odd-1");
    assert!(written("env.json").get("OWN_KEY").is_none());
    let in_files = async |text: &str| {
        let grep =
            tokio::process::Command::new("grep").args(["-rlaF", text, &sandbox.path("")]).output();
        String::from_utf8(grep.await.unwrap().stdout).unwrap()
    };
    assert!(in_files("odd-own").await.contains("sessions.db"));
    assert_eq!(in_files("onlyforthisone").await, "");
    for env in [
        json!({ "A": 1 }),
        json!({ "A=B": "x" }),
        json!({ "": "x" }),
        json!({ "A": "x".repeat(1 << 18) }),
    ] {
        let wrong = json!({ "cwd": sandbox.path(""), "_meta": { "env": env } });
        let (status, answer) = sandbox.acp("odd", None, new(&wrong)).await;
        assert_eq!(status, 400, "{answer}");
        assert!(answer["detail"].as_str().unwrap().contains("_meta/env"), "{answer}");
    }
}

#[tokio::test]
async fn a_prompt_streams_and_a_permission_makes_the_round() {
    let sandbox = Sandbox::new().await;
    // The stream is opened before there is anything to listen to, as clients do.
    let mut events = Events::open(sandbox.get("/v1/acp/s")).await;
    let session = sandbox.session("s").await;
    let prompt = sandbox.prompt("s", &session, "please ask permission");
    let answer = async {
        let asked =
            events.until(|event| event.data["method"] == "session/request_permission").await;
        let said: String = asked
            .iter()
            .filter_map(|event| event.data["params"]["update"]["content"]["text"].as_str())
            .collect();
        assert_eq!(said, "You said: please ask permission");
        let request = &asked.last().unwrap().data;
        // The Python client looks for it under one name.
        assert_eq!(request["params"]["permission"]["options"], request["params"]["options"]);
        let outcome = json!({ "outcome": "selected", "optionId": "allow" });
        let response =
            json!({ "jsonrpc": "2.0", "id": request["id"], "result": { "outcome": outcome } });
        assert_eq!(sandbox.acp("s", None, response.clone()).await.0, 202);
        // Once more: to nothing, and no error.
        assert_eq!(sandbox.acp("s", None, response).await.0, 202);
        events.until(|event| event.data["id"] == "p").await
    };
    let ((status, done), rest) = tokio::join!(prompt, answer);
    assert_eq!((status, done["result"]["stopReason"].as_str()), (200, Some("end_turn")), "{done}");
    assert!(rest.iter().any(|event| event.data["params"]["update"]["status"] == "completed"));
    // Numbers without a hole, from one on.
    let mut all = Events::open(sandbox.get("/v1/acp/s")).await;
    for number in 1..=rest.last().unwrap().id.unwrap() {
        assert_eq!(all.next().await.unwrap().id, Some(number));
    }
    let mut late = Events::open(sandbox.get("/v1/acp/s").header("last-event-id", 2)).await;
    assert_eq!(late.next().await.unwrap().id, Some(3));
}

#[tokio::test]
async fn a_turn_is_cancelled_without_ending_the_session() {
    let sandbox = Sandbox::new().await;
    let session = sandbox.session("s").await;
    let cancel = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let message = json!({ "jsonrpc": "2.0", "method": "session/cancel", "params": { "sessionId": session } });
        assert_eq!(sandbox.acp("s", None, message).await.0, 202);
    };
    let ((_, answer), ()) = tokio::join!(sandbox.prompt("s", &session, "wait"), cancel);
    assert_eq!(answer["result"]["stopReason"], "cancelled");
    assert_eq!(sandbox.prompt("s", &session, "hi").await.1["result"]["stopReason"], "end_turn");
}

#[tokio::test]
async fn two_requests_of_one_id_each_get_their_answer() {
    let sandbox = Sandbox::new().await;
    odd(&sandbox).await;
    let ask = async |what: &str| {
        let message = json!({ "id": "1", "method": "swap", "params": what });
        sandbox.acp("odd", None, message).await.1
    };
    let first = ask("first");
    let second = async {
        tokio::time::sleep(Duration::from_millis(150)).await;
        ask("second").await
    };
    let (first, second) = tokio::join!(first, second);
    assert_eq!(
        (first["result"]["mine"].as_str(), second["result"]["mine"].as_str()),
        (Some("first"), Some("second"))
    );
    assert_eq!((first["id"].as_str(), second["id"].as_str()), (Some("1"), Some("1")));
}

/// Checklist F08: garbage, invalid UTF-8, a line without end.
#[tokio::test]
async fn f08_an_agent_that_prints_garbage_is_heard_on() {
    let sandbox = Sandbox::new().await;
    odd(&sandbox).await;
    for text in ["garbage", "long"] {
        let (status, answer) = sandbox.prompt("odd", "odd-1", text).await;
        assert_eq!(
            (status, answer["result"]["stopReason"].as_str()),
            (200, Some("end_turn")),
            "{text}: {answer}"
        );
    }
    let mut events = Events::open(sandbox.get("/v1/acp/odd")).await;
    let all = events.until(|event| event.data["id"] == "p").await;
    let odd: Vec<&Value> = all
        .iter()
        .map(|event| &event.data)
        .filter(|data| data["method"] == "_adapter/invalid_stdout")
        .collect();
    assert_eq!(odd.len(), 5, "{odd:?}");
    assert_eq!(odd[0]["params"]["raw"], "this is no JSON");
}

#[tokio::test]
async fn f08_a_line_of_a_gibibyte_costs_no_memory() {
    let sandbox = Sandbox::new().await;
    odd(&sandbox).await;
    let before = super::files::memory(&sandbox);
    let (_, answer) = sandbox.prompt("odd", "odd-1", "gigabyte").await;
    assert_eq!(answer["result"]["stopReason"], "end_turn");
    let grown = super::files::memory(&sandbox).saturating_sub(before);
    assert!(grown < 48 * 1024, "{grown} KiB");
}

#[tokio::test]
async fn f08_an_agent_that_dies_is_noticed_at_once_and_started_again() {
    let sandbox = Sandbox::new().await;
    odd(&sandbox).await;
    let mut events = Events::open(sandbox.get("/v1/acp/odd")).await;
    let began = Instant::now();
    let (status, problem) = sandbox.prompt("odd", "odd-1", "die").await;
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!(status, 500, "{problem}");
    assert_eq!(problem["type"], "urn:sandbox-agent:error:agent_process_exited");
    assert_eq!(problem["details"], json!({ "exitCode": 41, "stderr": "the last words" }));
    // The stream says so, and ends.
    let last = events.until(|event| event.data["method"] == "_adapter/agent_exited").await;
    assert_eq!(last.last().unwrap().data["params"]["code"], 41);
    assert!(events.next().await.is_none());
    // The next message starts it again; the session it cannot load is refused in words, not for ever.
    let (status, answer) = sandbox.prompt("odd", "odd-1", "hi").await;
    assert_eq!(status, 200);
    assert!(answer["error"]["message"].as_str().unwrap().contains("cannot load"), "{answer}");
    // One that dies before it says a word.
    std::fs::write(sandbox.path("dies"), "").unwrap();
    let opened = json!({ "id": 0, "method": "initialize", "params": {} });
    let (status, problem) = sandbox.acp("dead", Some("claude"), opened).await;
    assert_eq!((status, problem["details"]["exitCode"].as_i64()), (500, Some(9)), "{problem}");
}

#[tokio::test]
async fn f08_an_agent_that_closes_its_output_or_ignores_every_signal_ends_within_two_seconds() {
    let sandbox = Sandbox::new().await;
    odd(&sandbox).await;
    assert_eq!(sandbox.prompt("odd", "odd-1", "deaf").await.1["result"]["stopReason"], "end_turn");
    let child: i64 = std::fs::read_to_string(sandbox.path("child")).unwrap().parse().unwrap();
    assert!(is_alive(child));
    let began = Instant::now();
    assert_eq!(sandbox.ask(sandbox.request(Method::DELETE, "/v1/acp/odd")).await.0, 204);
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    while is_alive(child) {
        assert!(began.elapsed() < Duration::from_secs(2), "a child of the agent outlives it");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // Unknown, or gone already: the same answer.
    assert_eq!(sandbox.ask(sandbox.request(Method::DELETE, "/v1/acp/odd")).await.0, 204);
    let (_, servers) = sandbox.ask(sandbox.get("/v1/acp")).await;
    assert_eq!(servers["servers"], json!([]));
}

/// Twenty thousand messages to a reader who reads late: none lost, in order, and memory stays.
#[tokio::test]
async fn a_slow_reader_loses_nothing_and_costs_no_memory() {
    let sandbox = Sandbox::new().await;
    odd(&sandbox).await;
    let mut events = Events::open(sandbox.get("/v1/acp/odd")).await;
    events.next().await.unwrap();
    let before = super::files::memory(&sandbox);
    assert_eq!(sandbox.prompt("odd", "odd-1", "flood").await.1["result"]["stopReason"], "end_turn");
    let grown = super::files::memory(&sandbox).saturating_sub(before);
    assert!(grown < 24 * 1024, "{grown} KiB");
    let (mut next, mut number) = (2, 0);
    loop {
        let event = events.next().await.unwrap();
        assert_eq!((event.name.as_str(), event.id), ("message", Some(next)));
        next += 1;
        match event.data["params"]["update"]["n"].as_u64() {
            Some(n) => {
                assert_eq!(n, number);
                number += 1;
            }
            None if event.data["id"] == "p" => break,
            None => {}
        }
    }
    assert_eq!(number, 20_000);
}

#[tokio::test]
async fn a_method_that_takes_too_long_is_a_timeout_and_a_prompt_is_kept_alive() {
    let sandbox = Sandbox::with(&["--acp-request-timeout-ms", "500"], &[]).await;
    odd(&sandbox).await;
    let began = Instant::now();
    let slow = json!({ "id": 5, "method": "slow", "params": { "seconds": 2 } });
    let (status, problem) = sandbox.acp("odd", None, slow).await;
    assert_eq!((status, problem["type"].as_str()), (504, Some("urn:sandbox-agent:error:timeout")));
    assert!(began.elapsed() < Duration::from_secs(2));
    // The late answer is on the stream, and a prompt may take longer than that.
    let mut events = Events::open(sandbox.get("/v1/acp/odd")).await;
    events.until(|event| event.data["id"] == 5).await;
    let session = sandbox.session("s").await;
    let prompt = json!({ "id": 9, "method": "session/prompt", "params": { "sessionId": session, "prompt": [{ "type": "text", "text": "wait" }] } });
    let request = sandbox.request(Method::POST, "/v1/acp/s").json(&prompt);
    let began = Instant::now();
    let mut response = request.send().await.unwrap();
    assert_eq!(response.status().as_u16(), 200);
    assert!((9..13).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    assert_eq!(response.chunk().await.unwrap().unwrap(), " ");
    let cancel = json!({ "method": "session/cancel", "params": { "sessionId": session } });
    assert_eq!(sandbox.acp("s", None, cancel).await.0, 202);
    let mut text = String::new();
    while let Some(chunk) = response.chunk().await.unwrap() {
        text.push_str(&String::from_utf8_lossy(&chunk));
    }
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (answer["id"].as_i64(), answer["result"]["stopReason"].as_str()),
        (Some(9), Some("cancelled"))
    );
}

#[tokio::test]
async fn an_idle_agent_ends_and_comes_back_with_its_session() {
    let sandbox = Sandbox::with(&["--agent-idle-secs", "1", "--max-agents", "1"], &[]).await;
    let session = sandbox.session("s").await;
    let (status, problem) =
        sandbox.acp("t", Some("mock"), json!({ "id": 0, "method": "initialize" })).await;
    assert_eq!(status, 409, "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("--max-agents"));
    let running = async || {
        sandbox.ask(sandbox.get("/v1/agents/mock")).await.1["serverStatus"]["status"] == "running"
    };
    assert!(running().await);
    eventually("it has ended", async || !running().await).await;
    assert_eq!(
        sandbox.prompt("s", &session, "still there?").await.1["result"]["stopReason"],
        "end_turn"
    );
    // Its history was loaded unheard: nothing is said twice.
    let (_, events) =
        sandbox.ask(sandbox.get(&format!("/v1/sessions/{session}/events?perPage=500"))).await;
    let loads = events["events"].as_array().unwrap().iter().filter(|event| {
        event["payload"]["params"]["update"]["sessionUpdate"] == "user_message_chunk"
    });
    assert_eq!(loads.count(), 0);
}

/// A body larger than two megabytes used to be refused, and the turn with it.
#[tokio::test]
async fn a_prompt_with_a_large_picture_is_taken() {
    let sandbox = Sandbox::new().await;
    let session = sandbox.session("s").await;
    let image = json!({ "type": "image", "mimeType": "image/png", "data": "A".repeat(8 << 20) });
    let params =
        json!({ "sessionId": session, "prompt": [{ "type": "text", "text": "look" }, image] });
    let (status, answer) = sandbox
        .acp("s", None, json!({ "id": 3, "method": "session/prompt", "params": params }))
        .await;
    assert_eq!((status, answer["result"]["stopReason"].as_str()), (200, Some("end_turn")));
}

#[tokio::test]
async fn an_agent_is_given_its_providers_variables_its_directory_and_its_servers_for_tools() {
    let canary = "canary-77ce";
    let variables = [
        ("ANTHROPIC_API_KEY", "phm_1"),
        ("OPENAI_API_KEY", canary),
        ("AWS_SECRET_ACCESS_KEY", canary),
    ];
    let sandbox = Sandbox::with(&["--env", "DECLARED=yes"], &variables).await;
    let put = async |query: &str, body: Value| {
        let request = sandbox.request(Method::PUT, &format!("/v1/config/mcp{query}"));
        assert_eq!(sandbox.ask(request.json(&body)).await.0, 204);
    };
    let home = sandbox.path("");
    put(
        &format!("?directory={home}&mcpName=tools"),
        json!({ "type": "local", "command": "run", "args": ["x"] }),
    )
    .await;
    odd(&sandbox).await;
    let read = |name: &str| -> Value {
        serde_json::from_str(&std::fs::read_to_string(sandbox.path(name)).unwrap()).unwrap()
    };
    let servers = read("params.json")["mcpServers"].clone();
    assert_eq!(servers, json!([{ "name": "tools", "command": "run", "args": ["x"], "env": [] }]));
    let env = read("env.json");
    assert_eq!(
        (env["ANTHROPIC_API_KEY"].as_str(), env["DECLARED"].as_str()),
        (Some("phm_1"), Some("yes"))
    );
    assert!(!env.to_string().contains(canary), "{env}");
}

#[tokio::test]
async fn what_can_be_set_of_a_session_is_set_and_the_rest_is_refused_with_what_could_be() {
    let sandbox = Sandbox::new().await;
    let session = sandbox.session("s").await;
    let set = async |what: &str, body: Value| {
        sandbox.post(&format!("/v1/sessions/{session}/{what}"), body).await
    };
    let (status, record) = set("model", json!({ "model": "mock-fast" })).await;
    assert_eq!(
        (status, record["configOptions"][0]["currentValue"].as_str()),
        (200, Some("mock-fast")),
        "{record}"
    );
    let (_, record) = set("mode", json!({ "mode": "plan" })).await;
    assert_eq!(record["modes"]["currentModeId"], "plan");
    let (_, record) = set("thought-level", json!({ "thoughtLevel": "high" })).await;
    assert_eq!(record["configOptions"][2]["currentValue"], "high");
    let (_, record) = set("config-options", json!({ "configId": "model", "value": "mock" })).await;
    assert_eq!(record["configOptions"][0]["currentValue"], "mock");
    for (what, body, allowed) in [
        ("model", json!({ "model": "none" }), json!(["mock", "mock-fast"])),
        ("mode", json!({ "mode": "none" }), json!(["normal", "plan"])),
        (
            "config-options",
            json!({ "configId": "none", "value": 1 }),
            json!(["model", "mode", "thought_level"]),
        ),
    ] {
        let (status, problem) = set(what, body).await;
        assert_eq!((status, &problem["allowed"]), (400, &allowed), "{problem}");
    }
    assert_eq!(
        sandbox.ask(sandbox.request(Method::DELETE, &format!("/v1/sessions/{session}"))).await.0,
        204
    );
    let (_, record) = sandbox.ask(sandbox.get(&format!("/v1/sessions/{session}"))).await;
    assert!(record["destroyedAt"].is_number());
}

#[tokio::test]
async fn a_message_is_one_line_for_the_agent_however_it_was_written() {
    let sandbox = Sandbox::new().await;
    odd(&sandbox).await;
    let post = async |body: &str| {
        let request = sandbox.request(Method::POST, "/v1/acp/odd");
        sandbox.ask(request.header("content-type", "application/json").body(body.to_owned())).await
    };
    let (status, answer) =
        post("{\n  \"id\": 1,\r\n  \"method\": \"slow\",\n  \"params\": {\n \"seconds\": 0\n}\n}")
            .await;
    assert_eq!((status, answer["result"]["slept"].as_bool()), (200, Some(true)), "{answer}");
    // No message of its own can be hidden in the parameters of another.
    let hidden = "{\"method\":\"x\",\"params\":[1,\n{\"id\":777,\"method\":\"session/new\",\"params\":{}}\n]}";
    assert_eq!(post(hidden).await.0, 202);
    assert_eq!(sandbox.prompt("odd", "odd-1", "hi").await.1["result"]["stopReason"], "end_turn");
    let (_, records) = sandbox.ask(sandbox.get("/v1/sessions")).await;
    assert_eq!(records["total"], 1, "{records}");
    for wrong in ["{}", "{\"id\":1}", "{\"id\":1,\"method\":5}", "{\"result\":1}"] {
        assert_eq!(post(wrong).await.0, 400, "{wrong}");
    }
}

/// An agent that reads nothing: what waits for it is bounded, and who sends it more is told.
#[tokio::test]
async fn f08_an_agent_that_does_not_read_costs_no_memory_and_is_told_of() {
    let sandbox = Sandbox::with(&["--acp-request-timeout-ms", "1000"], &[]).await;
    sandbox.put_agent("claude", "#!/bin/sh\nsleep 600\n");
    let ask = |id: u32| {
        let message =
            json!({ "id": id, "method": "session/prompt", "params": { "x": "A".repeat(8 << 20) } });
        sandbox.request(Method::POST, "/v1/acp/deaf?agent=claude").json(&message).send()
    };
    // Each client goes at once.
    for id in 0..60 {
        drop(tokio::time::timeout(Duration::from_millis(60), ask(id)).await);
    }
    tokio::time::sleep(Duration::from_secs(11)).await;
    let kept = super::files::memory(&sandbox);
    assert!(kept < 256 * 1024, "{kept} KiB");
    let notify = json!({ "method": "n", "params": "B".repeat(8 << 20) });
    let (status, problem) = sandbox.acp("deaf", None, notify).await;
    assert_eq!(
        (status, problem["type"].as_str()),
        (504, Some("urn:sandbox-agent:error:timeout")),
        "{problem}"
    );
    // It is ended all the same, while one is being started as well.
    assert_eq!(sandbox.ask(sandbox.request(Method::DELETE, "/v1/acp/deaf")).await.0, 204);
}

#[tokio::test]
async fn a_reader_who_knows_more_numbers_than_there_are_is_told_and_begins_anew() {
    let sandbox = Sandbox::new().await;
    sandbox.session("s").await;
    let mut events = Events::open(sandbox.get("/v1/acp/s").header("last-event-id", 99)).await;
    assert_eq!(events.next().await.unwrap().name, "gap");
    assert_eq!(events.next().await.unwrap().id, Some(1));
}

/// An install that hangs keeps nobody from ending anything.
#[tokio::test]
async fn what_is_being_started_can_be_ended() {
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join("bin")).unwrap();
    let npm = home.path().join("bin/npm");
    std::fs::write(&npm, "#!/bin/sh\nsleep 300\n").unwrap();
    std::fs::set_permissions(&npm, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let path = format!("{}:/usr/bin:/bin", home.path().join("bin").display());
    let mut sandbox = Sandbox::with(&[], &[("PATH", &path)]).await;
    let begin = sandbox.request(Method::POST, "/v1/acp/i?agent=claude");
    let begin = begin.json(&json!({ "id": 0, "method": "initialize", "params": {} })).send();
    drop(tokio::time::timeout(Duration::from_millis(500), begin).await);
    let restart = sandbox.post("/v1/sandbox/restart", json!({}));
    assert_eq!(tokio::time::timeout(Duration::from_secs(5), restart).await.unwrap().0, 200);
    let began = Instant::now();
    assert_eq!(sandbox.end(sandbox.keeper(), rustix::process::Signal::TERM).await, Some(0));
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
}
