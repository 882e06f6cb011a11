//! Sandbox agents that live in workspaces: reached under their own token, joined by commands, frozen, forked, killed.

use std::time::Duration;

use e2e::house::{As, CANARY, House, eventually, id};
use e2e::inhabitant::{ACME, Agent, patch, processes, state};
use e2e::leftovers;
use reqwest::Method;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

#[tokio::test]
async fn an_agent_lives_in_the_jail_with_phantom_tokens_and_commands_join_it() {
    let house = House::new().await;
    house.session("openai").await;
    let made = house.workspace(json!({})).await;
    let agent = Agent::start(&house, &made, json!({ "services": ["openai"] })).await;
    assert_eq!(agent.url, format!("{}/v1/workspaces/{}/agent", house.api, id(&made)));
    assert_eq!(agent.get(&house, "/v1/health").await, (200, json!({ "status": "ok" })));
    let told = agent.sh(&house, "id -un; env; echo x > /workspace/a; echo $HOME").await;
    assert!(told.starts_with("agent\n") && told.contains("OPENAI_API_KEY=phm_"), "{told}");
    assert!(!told.contains(CANARY) && !told.contains("SANDBOX_AGENT_TOKEN"), "{told}");
    // A model call through the proxy, under the agent's session; the way out is shut.
    let call = "curl -s -m 5 -H \"authorization: Bearer $OPENAI_API_KEY\" $OPENAI_BASE_URL/models; \
        curl -s -m 5 https://1.1.1.1/ || echo shut";
    let answered = agent.sh(&house, call).await;
    assert!(answered.contains("shut"), "{answered}");
    let seen = house.upstream.seen();
    assert!(seen.iter().any(|request| format!("{:?}", request.headers).contains(CANARY)));
    let (_, audit) = house.get(ACME, "/v1/audit").await;
    assert_eq!(audit["rows"][0]["session_id"], agent.session);
    // A command of the workspace is in the same jail: it sees the files, and the agent's processes.
    let joined = house.in_workspace(&made, "cat a; cat /proc/1/comm; echo y > b; exit 4").await;
    assert_eq!((&joined["exit_code"], &joined["stdout"]), (&json!(4), &json!("x\n")), "{joined}");
    assert_eq!(agent.sh(&house, "cat /workspace/b").await, "y\n");
    let row = state(&house, &made).await;
    assert_eq!((&row["state"], &row["session_id"]), (&json!("running"), &agent.session));
    let (_, jails) = house.get(ACME, "/v1/jails").await;
    assert_eq!(jails["rows"][0]["parent_id"], row["jail_id"], "the guest's row names its host");
    assert_eq!(jails["rows"][0]["exit_code"], 4);
    let (status, error) =
        house.post(ACME, &format!("/v1/workspaces/{}/agent", id(&made)), json!({})).await;
    assert_eq!(status, 409, "{error}");
    assert_eq!(house.delete(ACME, &format!("/v1/workspaces/{}/agent", id(&made))).await.0, 204);
    let session = format!("/v1/sessions/{}", agent.session.as_str().unwrap());
    assert_eq!(house.get(ACME, &session).await.0, 404, "its session went with it");
    assert_eq!(agent.get(&house, "/v1/health").await.0, 401, "and so did its token");
    assert_eq!(house.says(&made, "cat a b; ls -A /home/agent").await, "x\ny\n");
}

#[tokio::test]
async fn a_guest_ends_with_all_it_began_and_with_whoever_asked_for_it() {
    let house = House::new().await;
    let made = house.workspace(json!({})).await;
    let agent = Agent::start(&house, &made, json!({})).await;
    let began = std::time::Instant::now();
    let result = house.in_workspace(&made, "sleep 4321 & (setsid sleep 4322 &) ; echo done").await;
    assert_eq!(result["stdout"], "done\n");
    assert!(began.elapsed() < Duration::from_secs(3), "nobody waits for what is left");
    let left = agent.sh(&house, "ps ax | grep -c 'sleep 432[1]' || true").await;
    assert_eq!(left, "0\n");
    let path = format!("/v1/workspaces/{}/exec", id(&made));
    let slow = json!({ "cmd": "sleep", "args": ["60"], "timeout_secs": 1 });
    let (_, result) = house.post(ACME, &path, slow).await;
    assert_eq!((&result["timed_out"], &result["exit_code"]), (&json!(true), &json!(137)));
    for (body, status) in [
        (json!({ "cmd": "true", "memory_mb": 64 }), 400),
        (json!({ "cmd": "nothing-of-the-kind" }), 200),
    ] {
        let (found, answer) = house.post(ACME, &path, body).await;
        assert_eq!(found, status, "{answer}");
    }
    // Another session than the agent's is unknown to its jail's proxy.
    let session = house.session("openai").await;
    let other = json!({ "cmd": "true", "session_id": session["id"] });
    assert_eq!(house.post(ACME, &path, other).await.0, 409);
    // One at a time, as without an agent; and one whose caller goes is ended.
    let first =
        house.request(ACME, Method::POST, &path).json(&json!({ "cmd": "sleep", "args": ["4323"] }));
    let first = tokio::time::timeout(Duration::from_millis(700), first.send());
    let (_, second) = tokio::join!(first, async {
        tokio::time::sleep(Duration::from_millis(400)).await;
        assert_eq!(house.post(ACME, &path, json!({ "cmd": "true" })).await.0, 409);
    });
    let () = second;
    eventually("the guest is gone", async || {
        house.post(ACME, &path, json!({ "cmd": "true" })).await.0 == 200
    })
    .await;
    assert_eq!(agent.sh(&house, "ps ax | grep -c 'sleep 432[3]' || true").await, "0\n");
    // Streamed and attached, too.
    let stream = format!("/v1/workspaces/{}/exec/stream", id(&made));
    let events = house
        .request(ACME, Method::POST, &stream)
        .json(&json!({ "cmd": "sh", "args": ["-c", "echo one; echo two >&2; cat"], "stdin": "three" }))
        .send()
        .await
        .unwrap();
    let events = events.text().await.unwrap();
    for part in ["event: started", "data: one", "data: two", "data: three", "\"exit_code\":0"] {
        assert!(events.contains(part), "{part}: {events}");
    }
}

#[tokio::test]
async fn a_conversation_travels_with_snapshots_and_forks_which_have_tokens_of_their_own() {
    let house = House::new().await;
    house.session("openai").await;
    let made = house.workspace(json!({})).await;
    let agent = Agent::start(&house, &made, json!({ "services": ["openai"] })).await;
    let session = agent.converse(&house).await;
    agent.prompt(&house, &session, "remember the blue door").await;
    agent.sh(&house, "echo parent > /workspace/whose; echo kept > ~/note").await;
    let taken = house.snapshot(&made, "while it lives").await;
    assert!(taken["freeze_ms"].is_number(), "{taken}");
    let path = format!("/v1/workspaces/{}/fork", id(&made));
    let (status, forked) = house.post(ACME, &path, json!({ "count": 2, "agent": {} })).await;
    assert_eq!(status, 201, "{forked}");
    let forks = [&forked["forks"][0], &forked["forks"][1]];
    let agents = forks.map(|fork| Agent::of(&fork["agent"]));
    let tokens = [&agent, &agents[0], &agents[1]].map(|agent| agent.token.clone());
    assert!(tokens[0] != tokens[1] && tokens[1] != tokens[2]);
    let phantom = "echo $OPENAI_API_KEY";
    let (own, theirs) = (agent.sh(&house, phantom).await, agents[0].sh(&house, phantom).await);
    assert!(own.starts_with("phm_") && theirs.starts_with("phm_") && own != theirs);
    assert_ne!(agent.session, agents[0].session);
    // The fork goes on with the conversation, and ends differently.
    let heard = agents[0].said(&house, &session).await;
    assert!(heard.contains("the blue door"), "{heard}");
    let answered = agents[0].prompt(&house, &session, "and the red one").await;
    assert_eq!(answered["stopReason"], "end_turn");
    agents[0].sh(&house, "echo fork > /workspace/whose").await;
    assert!(agents[0].said(&house, &session).await.contains("the red one"));
    assert!(!agent.said(&house, &session).await.contains("the red one"));
    assert!(!agents[1].said(&house, &session).await.contains("the red one"));
    assert_eq!(agent.sh(&house, "cat /workspace/whose ~/note").await, "parent\nkept\n");
    assert_eq!(agents[0].sh(&house, "cat /workspace/whose ~/note").await, "fork\nkept\n");
    // A workspace of the snapshot has it all, as well.
    let restored = house.restored(&taken).await;
    let later = Agent::start(&house, &restored, json!({})).await;
    assert!(later.said(&house, &session).await.contains("the blue door"));
    assert_eq!(later.prompt(&house, &session, "again").await["stopReason"], "end_turn");
    // What is private to one home is not in the diff that a client sees as files of the workspace.
    let manifest = format!("/v1/snapshots/{}/manifest", taken["id"].as_str().unwrap());
    let manifest = house.get(ACME, &manifest).await.1;
    let paths = manifest["entries"].as_array().unwrap().iter().map(|entry| &entry["path"]);
    assert_eq!(paths.collect::<Vec<_>>(), ["whose"]);
}

#[tokio::test]
async fn an_idle_agent_stands_still_until_it_is_asked_and_a_busy_one_does_not() {
    let house = House::with(&["--idle-check-interval-secs", "1"]).await;
    let made = house.workspace(json!({ "idle_timeout_secs": 1 })).await;
    let agent = Agent::start(&house, &made, json!({})).await;
    agent
        .sh(
            &house,
            "(while :; do date +%s%N >> /workspace/ticks; sleep 0.05; done) >/dev/null 2>&1 &",
        )
        .await;
    eventually("it stands still", async || state(&house, &made).await["state"] == "paused").await;
    let row = house.get(ACME, &format!("/v1/workspaces/{}", id(&made))).await.1;
    assert!(row["paused_at"].is_string() && row["auto_snapshot"].is_string(), "{row}");
    let before = ticked(&house);
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(ticked(&house), before, "nothing moves");
    // A snapshot and a fork of one that stands still are of what it holds, and do not wake it.
    house.snapshot(&made, "of one that stands still").await;
    assert_eq!(state(&house, &made).await["state"], "paused");
    assert_eq!(agent.get(&house, "/v1/health").await.0, 200, "a request wakes it");
    assert_eq!(state(&house, &made).await["state"], "running");
    eventually("it goes on", async || ticked(&house) > before).await;
    // By a command, too.
    eventually("again", async || state(&house, &made).await["state"] == "paused").await;
    assert_eq!(house.says(&made, "echo joined").await, "joined\n");
    // A prompt that nobody waits for any more is work all the same.
    let session = agent.converse(&house).await;
    let prompt = json!([{ "type": "text", "text": "wait" }]);
    let body = json!({ "jsonrpc": "2.0", "id": 9, "method": "session/prompt",
        "params": { "sessionId": session, "prompt": prompt } });
    let asked = agent.request(&house, Method::POST, "/v1/acp/conversation").json(&body).send();
    let _gone = tokio::time::timeout(Duration::from_millis(300), asked).await;
    tokio::time::sleep(Duration::from_millis(3500)).await;
    assert_eq!(state(&house, &made).await["state"], "running", "it works");
    let cancel =
        json!({ "jsonrpc": "2.0", "method": "session/cancel", "params": { "sessionId": session } });
    agent.post(&house, "/v1/acp/conversation", cancel).await;
    eventually("at rest", async || state(&house, &made).await["state"] == "paused").await;
}

/// The file that ticks, as it is on disk.
/// How many bytes of ticks are written. Snapshots hold fewer or as many, and may go while we look.
fn ticked(house: &House) -> u64 {
    let files = house.trees().into_iter().map(|tree| tree.join("files/workspace/ticks"));
    files.filter_map(|path| Some(std::fs::metadata(path).ok()?.len())).max().expect("ticks")
}

#[tokio::test]
async fn an_agent_pauses_ends_and_runs_again_when_told_with_the_same_token() {
    let house = House::new().await;
    let made = house.workspace(json!({})).await;
    let agent = Agent::start(&house, &made, json!({})).await;
    let session = agent.converse(&house).await;
    for (wanted, status) in
        [("paused", 200), ("paused", 200), ("running", 200), ("ended", 200), ("ended", 200)]
    {
        let (found, view) = patch(&house, &made, wanted).await;
        assert_eq!((found, &view["state"]), (status, &json!(wanted)), "{view}");
    }
    assert!(processes(&house, "agent server").is_empty(), "it is gone");
    assert_eq!(agent.prompt(&house, &session, "you are back").await["stopReason"], "end_turn");
    assert_eq!(state(&house, &made).await["state"], "running");
    assert_eq!(patch(&house, &made, "asleep").await.0, 400);
    let other = house.workspace(json!({})).await;
    assert_eq!(patch(&house, &other, "paused").await.0, 404);
    // A guest keeps it from standing still.
    let path = format!("/v1/workspaces/{}/exec", id(&made));
    let guest = house
        .request(ACME, Method::POST, &path)
        .json(&json!({ "cmd": "sleep", "args": ["2"] }))
        .send();
    let (_, ()) = tokio::join!(guest, async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(patch(&house, &made, "paused").await.0, 409);
        assert_eq!(agent.get(&house, "/v1/health").await.0, 200);
    });
    assert_eq!(house.delete(ACME, &format!("/v1/workspaces/{}", id(&made))).await.0, 204);
    assert_eq!(agent.get(&house, "/v1/health").await.0, 401);
    assert!(processes(&house, "agent server").is_empty());
}

#[tokio::test]
async fn whatever_dies_in_the_middle_of_a_prompt_can_be_gone_on_with() {
    let mut house = House::new().await;
    let made = house.workspace(json!({})).await;
    let agent = Agent::start(&house, &made, json!({ "memory_mb": 256 })).await;
    let session = agent.converse(&house).await;
    agent.prompt(&house, &session, "what was acknowledged").await;
    let wait = json!({ "jsonrpc": "2.0", "id": 7, "method": "session/prompt", "params": {
        "sessionId": session, "prompt": [{ "type": "text", "text": "wait" }] } });
    for victim in ["coding agent", "sandbox agent", "keeper", "memory", "control plane"] {
        let asked = agent.request(&house, Method::POST, "/v1/acp/conversation").json(&wait).send();
        let mut waiting = tokio::task::JoinSet::new();
        waiting.spawn(asked);
        eventually("it works", async || {
            agent.get(&house, "/v1/acp").await.1["servers"][0]["busy"] == true
        })
        .await;
        match victim {
            "coding agent" => kill(&processes(&house, "mock-agent-process")),
            // The keeper is the first command, and the server its child.
            "sandbox agent" => kill(&processes(&house, "agent server")[1..2]),
            "keeper" => kill(&processes(&house, "agent server")[..1]),
            "memory" => {
                let hungry = "a=x; while :; do a=$a$a; done";
                drop(house.in_workspace(&made, hungry).await);
            }
            _ => {
                house.end(Signal::KILL).await;
                house.restart().await;
            }
        }
        let told = tokio::time::timeout(Duration::from_secs(20), waiting.join_next()).await;
        assert!(told.is_ok(), "{victim}: whoever waits hears of it");
        if victim == "keeper" || victim == "sandbox agent" || victim == "memory" {
            eventually("its end is on record", async || {
                state(&house, &made).await["ended"]["reason"].is_string()
            })
            .await;
            let reason = state(&house, &made).await["ended"]["reason"].clone();
            let wanted = if victim == "memory" { "oom_killed" } else { "exited" };
            assert_eq!(reason, wanted, "{victim}");
        }
        let heard = agent.said(&house, &session).await;
        assert!(heard.contains("what was acknowledged"), "{victim}: {heard}");
        let answered = agent.prompt(&house, &session, "go on").await;
        assert_eq!(answered["stopReason"], "end_turn", "{victim}");
        assert_eq!(state(&house, &made).await["state"], "running", "{victim}");
        assert_eq!(processes(&house, "agent server").len(), 2, "{victim}: one keeper, one server");
    }
    let server = house.pid();
    house.end(Signal::TERM).await;
    assert!(leftovers::cgroups(server).is_empty());
}

fn kill(processes: &[Pid]) {
    assert!(!processes.is_empty(), "there is somebody to kill");
    for process in processes {
        kill_process(*process, Signal::KILL).unwrap();
    }
}

#[tokio::test]
async fn nobody_gets_to_an_agent_but_by_its_token_or_its_tenants_key() {
    let house = House::new().await;
    let (mine, other) = (house.workspace(json!({})).await, house.workspace(json!({})).await);
    let (agent, another) = (
        Agent::start(&house, &mine, json!({})).await,
        Agent::start(&house, &other, json!({})).await,
    );
    let forged = format!("agt_{}", "0".repeat(64));
    let base = format!("{}/v1/workspaces/{}", house.api, id(&mine));
    let routes = [
        (Method::GET, "/agent/v1/health"),
        (Method::POST, "/agent/v1/processes/run"),
        (Method::PUT, "/agent/v1/fs/file?path=/workspace/x"),
        (Method::DELETE, "/agent/v1/acp/s"),
        (Method::GET, "/agent/v1/acp"),
        (Method::GET, "/agent/ui/"),
        (Method::GET, "/agent/"),
        (Method::GET, "/agent/v1/processes/p/terminal/ws"),
    ];
    let callers: [(Option<&str>, u16); 6] = [
        (None, 401),
        (Some("wrong-key"), 401),
        (Some(&forged), 401),
        (Some("agt_"), 401),
        (Some("globex-key"), 404),
        (Some(&another.token), 404),
    ];
    for (method, path) in &routes {
        for (caller, wanted) in &callers {
            let mut request = house.client.request(method.clone(), format!("{base}{path}"));
            if let Some(token) = caller {
                request = request.bearer_auth(token);
            }
            let status = request.send().await.unwrap().status();
            assert_eq!(status, *wanted, "{method} {path} as {caller:?}");
        }
    }
    // The token opens its agent alone: nothing of the control plane, and not its own start or end.
    for path in ["/v1/workspaces", "/v1/whoami", "/v1/credentials", "/v1/keys", "/v1/audit"] {
        assert_eq!(house.get(As(&agent.token), path).await.0, 401, "{path}");
    }
    let own = format!("/v1/workspaces/{}/agent", id(&mine));
    assert_eq!(house.get(As(&agent.token), &own).await.0, 401);
    assert_eq!(house.delete(As(&agent.token), &own).await.0, 401);
    assert_eq!(house.post(As("globex-key"), &own, json!({})).await.0, 404);
    assert_eq!(house.delete(As("globex-key"), &own).await.0, 404);
    // Paths that mean something else to another reader stay below the agent.
    for path in ["/../../../../v1/credentials", "/%2e%2e/%2e%2e/v1/whoami", "//v1/whoami"] {
        let response = agent.request(&house, Method::GET, path).send().await.unwrap();
        assert!(response.status().is_client_error(), "{path}: {}", response.status());
    }
    // By the tenant's own key, and as browsers send it.
    assert_eq!(house.get(ACME, &format!("{own}/v1/health")).await.0, 200);
    let in_query = format!("{base}/agent/v1/health?access_token={}", agent.token);
    assert_eq!(house.client.get(in_query).send().await.unwrap().status(), 200);
    // Neither token nor key goes on into the jail, and what comes out does not speak for our origin.
    let ui =
        agent.request(&house, Method::GET, "/ui/").header("cookie", "c=d").send().await.unwrap();
    let policies = ui.headers().get_all("content-security-policy");
    let sandboxed = policies.iter().any(|policy| policy.to_str().unwrap().contains("sandbox"));
    assert!(sandboxed, "{:?}", ui.headers());
    // The database holds a hash of it.
    let file = std::fs::read(house.state.path().join("state/agentjail.db")).unwrap();
    let wal = std::fs::read(house.state.path().join("state/agentjail.db-wal")).unwrap_or_default();
    for bytes in [file, wal] {
        assert!(!String::from_utf8_lossy(&bytes).contains(&agent.token[4..]));
    }
}

#[tokio::test]
async fn what_cannot_be_is_refused_by_field_and_leaves_nothing() {
    let house = House::new().await;
    house.session("openai").await;
    let made = house.workspace(json!({})).await;
    let path = format!("/v1/workspaces/{}/agent", id(&made));
    let before = house.get(ACME, "/v1/sessions").await.1.as_array().unwrap().len();
    for (body, field) in [
        (json!({ "services": ["none-such"] }), "none-such"),
        (json!({ "services": [] }), "services"),
        (json!({ "scopes": { "openai": ["/x"] } }), "scopes"),
        (json!({ "services": ["openai"], "session_id": "sess_1" }), "session_id"),
        (json!({ "agents": ["claude"] }), "agents[0]"),
        (json!({ "network": { "mode": "none" } }), "network"),
        (json!({ "env": [["A=B", "c"]] }), "env[0]"),
        (json!({ "memory": 1 }), "memory"),
        (json!({ "services": ["openai"], "memory_mb": 1 }), "memory"),
    ] {
        let (status, error) = house.post(ACME, &path, body.clone()).await;
        assert!((400..=502).contains(&status) && status != 500, "{body}: {status} {error}");
        assert!(error["error"].as_str().unwrap().contains(field), "{body}: {error}");
    }
    assert_eq!(house.get(ACME, &path).await.0, 404);
    let after = house.get(ACME, "/v1/sessions").await.1.as_array().unwrap().len();
    assert_eq!(before, after, "no session is left");
    assert_eq!(house.says(&made, "echo free").await, "free\n");
    // A fork whose agent cannot come up is none.
    let count = house.get(ACME, "/v1/workspaces").await.1["total"].clone();
    let fork = json!({ "count": 2, "agent": { "agents": ["claude"] } });
    let (status, error) =
        house.post(ACME, &format!("/v1/workspaces/{}/fork", id(&made)), fork).await;
    assert_eq!(status, 400, "{error}");
    assert_eq!(house.get(ACME, "/v1/workspaces").await.1["total"], count);
}

#[tokio::test]
async fn an_agent_lives_in_a_users_house_too() {
    let [_root, house] = House::of_root_and_of_a_user().await;
    let made = house.workspace(json!({})).await;
    let agent = Agent::start(&house, &made, json!({})).await;
    let session = agent.converse(&house).await;
    assert_eq!(agent.prompt(&house, &session, "hello").await["stopReason"], "end_turn");
    assert_eq!(agent.sh(&house, "id -un; id -u").await, "agent\n1000\n");
    assert_eq!(house.says(&made, "echo joined").await, "joined\n");
    let path = format!("/v1/workspaces/{}/fork", id(&made));
    let (status, forked) = house.post(ACME, &path, json!({ "count": 1, "agent": {} })).await;
    assert_eq!(status, 201, "{forked}");
    let fork = Agent::of(&forked["forks"][0]["agent"]);
    assert_eq!(fork.prompt(&house, &session, "more").await["stopReason"], "end_turn");
}
