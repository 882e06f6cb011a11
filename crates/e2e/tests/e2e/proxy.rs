//! The phantom proxy, from outside a jail: what it lets through, and what it never does.

use std::time::Duration;

use e2e::house::{As, CANARY, House, answer, eventually};
use futures_util::StreamExt as _;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

fn token(session: &Value, name: &str) -> String {
    session["env"][name].as_str().unwrap().to_owned()
}

async fn ask(house: &House, path: &str, token: &str) -> (u16, Value) {
    let request = house.client.get(format!("{}{path}", house.proxy)).bearer_auth(token);
    answer(request.send().await.unwrap()).await
}

async fn last_audit(house: &House) -> Value {
    house.get(As("root-key"), "/v1/audit?limit=1").await.1["rows"][0].clone()
}

#[tokio::test]
async fn the_phantom_goes_in_and_the_key_comes_out() {
    let house = House::new().await;
    let session = house.session_with(json!({ "services": ["openai", "anthropic"] })).await;
    let (openai, anthropic) =
        (token(&session, "OPENAI_API_KEY"), token(&session, "ANTHROPIC_API_KEY"));
    assert_eq!(ask(&house, "/v1/openai/v1/models?limit=3&q=a%20b", &openai).await.0, 200);
    let request = house
        .client
        .post(format!("{}/v1/anthropic/v1/messages", house.proxy))
        .header("x-api-key", &anthropic);
    assert_eq!(request.body("{}").send().await.unwrap().status(), 200);
    let seen = house.upstream.seen();
    assert_eq!(seen[0].path, "/v1/models?limit=3&q=a%20b");
    assert_eq!(seen[0].headers["authorization"], format!("Bearer {CANARY}"));
    assert_eq!(seen[0].headers["host"], house.upstream.address.to_string());
    assert_eq!(
        (&seen[1].headers["x-api-key"], &seen[1].headers["anthropic-version"]),
        (&CANARY.parse().unwrap(), &"2023-06-01".parse().unwrap())
    );
    assert!(!seen[1].headers.contains_key("authorization"));
    let row = last_audit(&house).await;
    assert_eq!(
        (&row["service"], &row["method"], &row["path"], &row["status"]),
        (&json!("anthropic"), &json!("POST"), &json!("/v1/messages"), &json!(200))
    );
    assert_eq!(
        (&row["session_id"], &row["tenant_id"], &row["reject_reason"]),
        (&session["id"], &json!("acme"), &json!(null))
    );
    assert!(row["upstream_ms"].is_u64());
    eventually("the bytes are counted", async || {
        let row = last_audit(&house).await;
        row["request_bytes"] == 2 && row["response_bytes"].as_u64().is_some_and(|bytes| bytes > 0)
    })
    .await;
}

#[tokio::test]
async fn d09_every_refusal_is_told_written_down_and_never_sent() {
    for house in House::of_root_and_of_a_user().await {
        let session = house.session_with(json!({ "services": ["openai", "github"], "scopes": { "github": ["/repos/my-org/*/issues*"] } })).await;
        let (openai, github) = (token(&session, "OPENAI_API_KEY"), token(&session, "GITHUB_TOKEN"));
        let unknown = format!("phm_{}", "0".repeat(64));
        for (path, token, status, text, reason) in [
            ("/v1/openai/v1/models", "not-a-phantom", 401, "missing phantom token", "no_token"),
            ("/v1/openai/v1/models", CANARY, 401, "missing phantom token", "no_token"),
            ("/v1/openai/v1/models", &unknown, 401, "unknown phantom token", "unknown_token"),
            ("/v1/nosuch/v1/models", &openai, 404, "unknown service", "unknown_service"),
            ("/v1/github/user", &openai, 403, "token not valid for this service", "wrong_service"),
            ("/v1/github/user", &github, 403, "path not in scope", "scope_denied"),
            (
                "/v1/github/repos/my-org-evil/a/issues",
                &github,
                403,
                "path not in scope",
                "scope_denied",
            ),
            ("/v1/github/repos/my-org/a/pulls", &github, 403, "path not in scope", "scope_denied"),
        ] {
            let (got, body) = ask(&house, path, token).await;
            assert_eq!((got, body), (status, json!(text)), "{path}");
            assert_eq!(last_audit(&house).await["reject_reason"], reason, "{path}");
        }
        assert_eq!(ask(&house, "/v1/github/repos/my-org/app/issues/7", &github).await.0, 200);
        assert_eq!(ask(&house, "/nothing", &openai).await.0, 404);
        assert_eq!(ask(&house, "/healthz", "").await, (200, json!("ok")));
        assert_eq!(house.delete(As("acme-key"), "/v1/credentials/openai").await.0, 204);
        assert_eq!(
            ask(&house, "/v1/openai/v1/models", &openai).await,
            (502, json!("upstream key not configured"))
        );
        assert_eq!(last_audit(&house).await["reject_reason"], "no_upstream_key");
        assert_eq!(
            house
                .delete(
                    As("acme-key"),
                    &format!("/v1/sessions/{}", session["id"].as_str().unwrap())
                )
                .await
                .0,
            204
        );
        assert_eq!(ask(&house, "/v1/github/repos/my-org/app/issues", &github).await.0, 401);
        assert_eq!(house.upstream.seen().len(), 1);
        // A closed session's rows stay its tenant's, and are counted.
        let (_, audit) = house.get(As("acme-key"), "/v1/audit").await;
        assert!(audit["total"].as_u64().unwrap() >= 7, "{audit}");
        assert_eq!(
            house.get(As("globex-key"), "/v1/audit").await.1,
            json!({ "rows": [], "total": 0 })
        );
    }
}

#[tokio::test]
async fn d09_a_scope_is_not_escaped_by_spelling() {
    for house in House::of_root_and_of_a_user().await {
        let session = house
            .session_with(json!({ "services": ["openai"], "scopes": { "openai": ["/v1/chat/*"] } }))
            .await;
        let openai = token(&session, "OPENAI_API_KEY");
        for path in [
            "/v1/chat/../files",
            "/v1/chat/%2e%2e/files",
            "/v1/chat/%2E%2e/files",
            "/v1/chat/..%2ffiles",
            "/v1/chat/%252e%252e/files",
            "/v1/chat/..;/files",
            "/v1/chat\\..\\files",
            "/v1/chat/%5c../files",
            "/v1%2fchat%2f..%2ffiles",
            "/v1/Chat/x",
            "//v1/files",
            "/v1/chat/%00",
        ] {
            // By hand: clients and libraries tidy paths up.
            let status = raw(&house, &format!("GET /v1/openai{path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {openai}\r\nconnection: close\r\n\r\n")).await;
            assert!(
                ["HTTP/1.1 400", "HTTP/1.1 403"].iter().any(|refusal| status.starts_with(refusal)),
                "{path}: {status}"
            );
        }
        assert!(house.upstream.seen().is_empty());
        assert_eq!(ask(&house, "/v1/openai/v1/chat/completions", &openai).await.0, 200);
    }
}

async fn raw(house: &House, request: &str) -> String {
    let mut stream =
        TcpStream::connect(house.proxy.strip_prefix("http://").unwrap()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    drop(tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await);
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn d07_requests_that_two_servers_would_read_differently_are_one_or_none() {
    for house in House::of_root_and_of_a_user().await {
        let openai = token(&house.session("openai").await, "OPENAI_API_KEY");
        let head = format!(
            "POST /v1/openai/v1/x HTTP/1.1\r\nauthorization: Bearer {openai}\r\nconnection: close\r\n"
        );
        let smuggled = "GET /v1/openai/v1/smuggled HTTP/1.1\r\nhost: x\r\n\r\n";
        let chunked = format!(
            "{head}host: x\r\ncontent-length: {}\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}",
            5 + smuggled.len()
        );
        raw(&house, &chunked).await;
        let two_hosts =
            raw(&house, &format!("{head}host: x\r\nhost: y\r\ncontent-length: 0\r\n\r\n")).await;
        assert!(two_hosts.starts_with("HTTP/1.1 400"), "{two_hosts}");
        let two_lengths = raw(
            &house,
            &format!("{head}host: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab"),
        )
        .await;
        assert!(two_lengths.starts_with("HTTP/1.1 400"), "{two_lengths}");
        let dropped = raw(&house, &format!("{head}host: x\r\ncontent-length: 2\r\nproxy-connection: x\r\nte: trailers\r\nupgrade: h2c\r\n\r\nab")).await;
        assert!(dropped.starts_with("HTTP/1.1 200"), "{dropped}");
        let seen = house.upstream.seen();
        assert!(seen.iter().all(|seen| !seen.path.contains("smuggled")), "{seen:?}");
        let last = seen.last().unwrap();
        assert_eq!(
            (last.headers["authorization"].to_str().unwrap(), last.body.as_slice()),
            (format!("Bearer {CANARY}").as_str(), b"ab".as_slice())
        );
        for name in ["te", "upgrade", "proxy-connection"] {
            assert!(!last.headers.contains_key(name), "{name}");
        }
    }
}

#[tokio::test]
async fn d07_a_client_cannot_have_the_key_taken_out_of_its_request() {
    for house in House::of_root_and_of_a_user().await {
        let anthropic = token(&house.session("anthropic").await, "ANTHROPIC_API_KEY");
        let answer = raw(&house, &format!("GET /v1/anthropic/v1/x HTTP/1.1\r\nhost: x\r\nx-api-key: {anthropic}\r\ncookie: a=b\r\nx-forwarded-for: 10.0.0.1\r\nconnection: close, x-api-key\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let seen = &house.upstream.seen()[0];
        assert_eq!(seen.headers["x-api-key"], CANARY);
        assert!(
            !seen.headers.contains_key("cookie") && !seen.headers.contains_key("x-forwarded-for")
        );
    }
}

#[tokio::test]
async fn d04_a_redirect_is_passed_back_and_never_followed() {
    for house in House::of_root_and_of_a_user().await {
        let anthropic = token(&house.session("anthropic").await, "ANTHROPIC_API_KEY");
        for method in [Method::GET, Method::POST] {
            let request = house
                .client
                .request(method, format!("{}/v1/anthropic/redirect", house.proxy))
                .header("x-api-key", &anthropic);
            let response = request.send().await.unwrap();
            assert_eq!(
                (response.status().as_u16(), response.headers()["location"].to_str().unwrap()),
                (302, "http://elsewhere.example/take")
            );
        }
        assert_eq!(house.upstream.seen().len(), 2);
    }
}

/// The descriptors a process has open.
fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// Opens all connections to the proxy that it can, asks for nothing with them, and keeps them a while.
pub(crate) const HOARD: &str = "import os, socket, time\n\
    port = int(os.environ['OPENAI_BASE_URL'].split(':')[2].split('/')[0]); held = []\n\
    for n in range(400):\n\
    \x20 s = socket.socket(); s.settimeout(0.2)\n\
    \x20 try: s.connect(('127.0.0.1', port)); s.sendall(b'GET / HT')\n\
    \x20 except OSError: pass\n\
    \x20 held.append(s)\n\
    time.sleep(4); print(len(held))";

#[tokio::test]
async fn d13_a_jail_that_opens_all_connections_it_can_takes_nobody_elses() {
    for house in House::of_root_and_of_a_user().await {
        let (greedy, other) = (house.session("openai").await, house.session("openai").await);
        let before = descriptors(house.pid());
        let held = house.exec(&greedy, json!({ "cmd": "python3", "args": ["-c", HOARD] }));
        let asked = async {
            eventually("it holds what it can get", async || {
                descriptors(house.pid()) > before + 100
            })
            .await;
            let taken = descriptors(house.pid()) - before;
            let ask = "curl -s -o /dev/null -w '%{http_code}' -H \"authorization: Bearer $OPENAI_API_KEY\" $OPENAI_BASE_URL/models";
            let answer = house.exec(&other, json!({ "cmd": "sh", "args": ["-c", ask] })).await;
            (taken, answer)
        };
        let (held, (taken, answer)) = tokio::join!(held, asked);
        assert_eq!(
            (&held["stdout"], &answer["stdout"]),
            (&json!("400\n"), &json!("200")),
            "{held}"
        );
        // A place for each of 128 connections, and what two jails take.
        assert!(taken < 200, "{taken} descriptors");
    }
}

#[tokio::test]
async fn repeated_headers_all_come_back() {
    let house = House::new().await;
    let openai = token(&house.session("openai").await, "OPENAI_API_KEY");
    let response = house
        .client
        .get(format!("{}/v1/openai/cookies", house.proxy))
        .bearer_auth(&openai)
        .send()
        .await
        .unwrap();
    let cookies: Vec<_> = response.headers().get_all("set-cookie").iter().collect();
    assert_eq!(cookies, ["a=1", "b=2"]);
}

#[tokio::test]
async fn tokens_are_found_where_git_and_stripe_put_them() {
    let house = House::new().await;
    let session = house.session_with(json!({ "services": ["github", "stripe"] })).await;
    let (github, stripe) = (token(&session, "GITHUB_TOKEN"), token(&session, "STRIPE_API_KEY"));
    let get = |path: &str| house.client.get(format!("{}{path}", house.proxy));
    for request in [
        get("/v1/github/user").header("authorization", format!("token {github}")),
        get("/v1/github/user").basic_auth("x-access-token", Some(&github)),
        get("/v1/github/user").header("authorization", &github),
        get("/v1/stripe/v1/charges").basic_auth(&stripe, Some("")),
    ] {
        assert_eq!(request.send().await.unwrap().status(), 200);
    }
    let keys: Vec<_> =
        house.upstream.seen().iter().map(|seen| seen.headers["authorization"].clone()).collect();
    assert!(keys.iter().all(|key| key == &format!("Bearer {CANARY}")), "{keys:?}");
    assert_eq!(
        get(&format!("/v1/github/user?access_token={github}")).send().await.unwrap().status(),
        401
    );
}

#[tokio::test]
async fn closing_a_session_cuts_its_streams() {
    let house = House::new().await;
    let session = house.session("openai").await;
    let openai = token(&session, "OPENAI_API_KEY");
    let response = house
        .client
        .get(format!("{}/v1/openai/endless", house.proxy))
        .bearer_auth(&openai)
        .send()
        .await
        .unwrap();
    let mut stream = response.bytes_stream();
    for _ in 0..3 {
        stream.next().await.unwrap().unwrap();
    }
    assert_eq!(
        house
            .delete(As("acme-key"), &format!("/v1/sessions/{}", session["id"].as_str().unwrap()))
            .await
            .0,
        204
    );
    let rest = tokio::time::timeout(Duration::from_secs(5), async {
        while let Some(Ok(_)) = stream.next().await {}
    })
    .await;
    assert!(rest.is_ok(), "the stream goes on after its session was closed");
}

#[tokio::test]
async fn deleting_a_key_or_expiry_cuts_streams_too() {
    let house = House::new().await;
    let session =
        house.session_with(json!({ "services": ["openai", "github"], "ttl_secs": 2 })).await;
    let open = async |service: &str, name: &str| {
        let url = format!("{}/v1/{service}/endless", house.proxy);
        house
            .client
            .get(url)
            .bearer_auth(token(&session, name))
            .send()
            .await
            .unwrap()
            .bytes_stream()
    };
    let mut openai = open("openai", "OPENAI_API_KEY").await;
    let mut github = open("github", "GITHUB_TOKEN").await;
    openai.next().await.unwrap().unwrap();
    github.next().await.unwrap().unwrap();
    assert_eq!(house.delete(As("acme-key"), "/v1/credentials/openai").await.0, 204);
    for stream in [&mut openai, &mut github] {
        let end = tokio::time::timeout(Duration::from_secs(5), async {
            while let Some(Ok(_)) = stream.next().await {}
        })
        .await;
        assert!(end.is_ok(), "a stream goes on without its key or after its session's end");
    }
    assert_eq!(ask(&house, "/v1/github/x", &token(&session, "GITHUB_TOKEN")).await.0, 401);
}

#[tokio::test]
async fn bodies_stream_up_and_down_without_being_held() {
    let house = House::new().await;
    let openai = token(&house.session("openai").await, "OPENAI_API_KEY");
    let body = futures_util::stream::iter(
        (0..512).map(|_| Ok::<_, std::io::Error>(vec![b'x'; 64 * 1024])),
    );
    let request =
        house.client.post(format!("{}/v1/openai/v1/files", house.proxy)).bearer_auth(&openai);
    let response = request.body(reqwest::Body::wrap_stream(body)).send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(house.upstream.seen()[0].body.len(), 32 << 20);
    let peak = std::fs::read_to_string(format!("/proc/{}/status", house.pid())).unwrap();
    let peak: u64 = peak
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap();
    assert!(peak < 150 * 1024, "{peak} KiB at its peak");
}

#[tokio::test]
async fn a_websocket_passes_and_is_counted() {
    let house = House::new().await;
    let openai = token(&house.session("openai").await, "OPENAI_API_KEY");
    let mut stream =
        TcpStream::connect(house.proxy.strip_prefix("http://").unwrap()).await.unwrap();
    let head = format!(
        "GET /v1/openai/ws HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {openai}\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 4096];
    let length = stream.read(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    assert!(
        answer.to_lowercase().contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="),
        "{answer}"
    );
    // A masked text frame, "hi".
    stream.write_all(&[0x81, 0x82, 1, 2, 3, 4, b'h' ^ 1, b'i' ^ 2]).await.unwrap();
    let mut echo = [0; 9];
    stream.read_exact(&mut echo).await.unwrap();
    assert_eq!(&echo[2..], b"echo hi");
    assert_eq!(house.upstream.seen()[0].headers["authorization"], format!("Bearer {CANARY}"));
    drop(stream);
    eventually("the exchange is written down", async || {
        let row = last_audit(&house).await;
        row["status"] == 101 && row["response_bytes"].as_u64().is_some_and(|bytes| bytes >= 9)
    })
    .await;
}

#[tokio::test]
async fn a_provider_of_ones_own_works() {
    let stand_in = e2e::upstream::Upstream::start().await;
    let flag = format!("search={},header:x-search-key", stand_in.url());
    let house = House::with(&["--provider", &flag]).await;
    let session = house.session("search").await;
    let key = token(&session, "SEARCH_API_KEY");
    assert_eq!(session["env"]["SEARCH_BASE_URL"], format!("{}/v1/search", house.proxy));
    let request =
        house.client.get(format!("{}/v1/search/q", house.proxy)).header("x-search-key", &key);
    assert_eq!(request.send().await.unwrap().status(), 200);
    assert_eq!(stand_in.seen()[0].headers["x-search-key"], CANARY);
}

#[tokio::test]
async fn an_upstream_that_does_not_answer_is_502_without_its_address() {
    let house = House::with(&["--upstream", "openai=http://127.0.0.1:1"]).await;
    let openai = token(&house.session("openai").await, "OPENAI_API_KEY");
    let (status, body) = ask(&house, "/v1/openai/v1/models", &openai).await;
    assert_eq!((status, body), (502, json!("upstream failed")));
    assert_eq!(last_audit(&house).await["reject_reason"], "upstream_error");
}

#[tokio::test]
async fn a_client_that_hangs_up_first_is_written_down_all_the_same() {
    let house = House::new().await;
    let openai = token(&house.session("openai").await, "OPENAI_API_KEY");
    let url = format!("{}/v1/openai/silent", house.proxy);
    let request = house.client.get(url).bearer_auth(&openai).send();
    assert!(tokio::time::timeout(Duration::from_millis(400), request).await.is_err());
    eventually("there is a row", async || {
        let row = last_audit(&house).await;
        row["path"] == "/silent" && row["reject_reason"] == "client_gone" && row["status"] == 499
    })
    .await;
}

#[tokio::test]
async fn d10_methods_that_would_show_the_key_or_lose_the_path_are_refused() {
    let house = House::new().await;
    let openai = token(&house.session("openai").await, "OPENAI_API_KEY");
    for method in ["CONNECT", "TRACE"] {
        let head = format!(
            "{method} /v1/openai/v1/x HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {openai}\r\nconnection: close\r\n\r\n"
        );
        let answer = raw(&house, &head).await;
        assert!(
            ["HTTP/1.1 405", "HTTP/1.1 400"].iter().any(|refusal| answer.starts_with(refusal)),
            "{method}: {answer}"
        );
    }
    assert!(house.upstream.seen().is_empty());
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_when_its_session_is_closed() {
    let house = House::new().await;
    let session = house.session("openai").await;
    let openai = token(&session, "OPENAI_API_KEY");
    let mut stream =
        TcpStream::connect(house.proxy.strip_prefix("http://").unwrap()).await.unwrap();
    let head = format!(
        "GET /v1/openai/flood HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {openai}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut first = [0; 100];
    stream.read_exact(&mut first).await.unwrap();
    // By now every buffer on the way is full, and nobody asks for more.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(
        house
            .delete(As("acme-key"), &format!("/v1/sessions/{}", session["id"].as_str().unwrap()))
            .await
            .0,
        204
    );
    eventually("the upstream's stream is ended", async || house.upstream.open_floods() == 0).await;
}

#[tokio::test]
async fn an_upload_that_goes_on_is_no_silence() {
    let house = House::with(&["--upstream-silence-secs", "1"]).await;
    let openai = token(&house.session("openai").await, "OPENAI_API_KEY");
    let body = futures_util::stream::unfold(0, |n| async move {
        tokio::time::sleep(Duration::from_millis(300)).await;
        (n < 8).then_some((Ok::<_, std::io::Error>("piece"), n + 1))
    });
    let request =
        house.client.post(format!("{}/v1/openai/v1/files", house.proxy)).bearer_auth(&openai);
    let response = request.body(reqwest::Body::wrap_stream(body)).send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(house.upstream.seen()[0].body, b"piece".repeat(8));
}

/// A client that is refused while it still sends hears why.
#[tokio::test]
async fn a_refusal_is_heard_by_who_sends_a_large_body_first() {
    let house = House::new().await;
    let mut stream =
        TcpStream::connect(house.proxy.strip_prefix("http://").unwrap()).await.unwrap();
    let head = "POST /v1/openai/v1/files HTTP/1.1\r\nhost: x\r\nauthorization: Bearer phm_0\r\n\
        content-length: 16777216\r\nconnection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let part = vec![b'x'; 64 * 1024];
    for _ in 0..256 {
        stream.write_all(&part).await.unwrap();
        tokio::time::sleep(Duration::from_micros(100)).await;
    }
    let mut answer = Vec::new();
    drop(tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await);
    assert!(answer.starts_with(b"HTTP/1.1 401"), "{}", String::from_utf8_lossy(&answer));
}
