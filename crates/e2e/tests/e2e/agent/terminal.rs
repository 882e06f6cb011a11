//! Terminals over their sockets.

use std::time::Duration;

use e2e::house::eventually;
use e2e::sandbox::{Sandbox, TOKEN};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn terminal(sandbox: &Sandbox, command: &str, args: &[&str]) -> String {
    let body = json!({ "command": command, "args": args, "tty": true, "cols": 101, "rows": 33 });
    let (status, info) = sandbox.post("/v1/processes", body).await;
    assert_eq!(status, 200, "{info}");
    info["id"].as_str().unwrap().to_owned()
}

async fn open(sandbox: &Sandbox, id: &str, query: &str) -> Socket {
    let url = sandbox.url.replace("http", "ws");
    let url = format!("{url}/v1/processes/{id}/terminal/ws?access_token={TOKEN}{query}");
    let (mut socket, _) = connect_async(url).await.unwrap();
    let ready = socket.next().await.unwrap().unwrap();
    let ready: Value = serde_json::from_str(ready.to_text().unwrap()).unwrap();
    assert_eq!(ready, json!({ "type": "ready", "processId": id }));
    socket
}

async fn next(socket: &mut Socket) -> Option<Message> {
    let message = tokio::time::timeout(Duration::from_secs(10), socket.next()).await;
    message.expect("a message in time").and_then(Result::ok)
}

/// Output up to some text.
async fn until(socket: &mut Socket, text: &str) -> Vec<u8> {
    let mut output = Vec::new();
    while !String::from_utf8_lossy(&output).contains(text) {
        match next(socket).await {
            Some(Message::Binary(bytes)) => output.extend_from_slice(&bytes),
            other => panic!("{other:?} after {:?}", String::from_utf8_lossy(&output)),
        }
    }
    output
}

#[tokio::test]
async fn a_terminal_has_its_size_from_the_start_and_several_viewers() {
    let sandbox = Sandbox::new().await;
    let script = "for turn in 1 2; do stty size; read x; done; stty size; exit 5";
    let id = terminal(&sandbox, "bash", &["--norc", "-c", script]).await;
    let (mut one, mut two) = (open(&sandbox, &id, "").await, open(&sandbox, &id, "").await);
    until(&mut one, "33 101").await;
    until(&mut two, "33 101").await;
    one.send(Message::text(r#"{"type":"resize","cols":55,"rows":22}"#)).await.unwrap();
    one.send(Message::text(r#"{"type":"input","data":"go\n"}"#)).await.unwrap();
    until(&mut one, "22 55").await;
    let resized = format!("/v1/processes/{id}/terminal/resize");
    assert_eq!(sandbox.post(&resized, json!({ "cols": 56, "rows": 22 })).await.0, 200);
    two.send(Message::text(r#"{"type":"input","data":"go\n"}"#)).await.unwrap();
    for viewer in [&mut one, &mut two] {
        until(viewer, "22 56").await;
        let exit = loop {
            match next(viewer).await {
                Some(Message::Binary(_)) => {}
                other => break other,
            }
        };
        let exit: Value = serde_json::from_str(exit.unwrap().to_text().unwrap()).unwrap();
        assert_eq!(exit, json!({ "type": "exit", "exitCode": 5 }));
        assert!(matches!(next(viewer).await, Some(Message::Close(_)) | None));
    }
}

#[tokio::test]
async fn a_viewer_sees_what_was_shown_before_and_goes_on_where_it_was() {
    let sandbox = Sandbox::new().await;
    let id = terminal(&sandbox, "sh", &["-c", "echo first; read x; echo second; read y"]).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut early = open(&sandbox, &id, "").await;
    let shown = until(&mut early, "first").await;
    drop(early);
    let mut again = open(&sandbox, &id, &format!("&since={}", shown.len())).await;
    // Binary from a viewer is what was typed.
    again.send(Message::binary(&b"x\n"[..])).await.unwrap();
    let rest = until(&mut again, "second").await;
    assert!(!String::from_utf8_lossy(&rest).contains("first"));
    again.send(Message::text(r#"{"type":"nonsense"}"#)).await.unwrap();
    let error = loop {
        if let Message::Text(text) = next(&mut again).await.unwrap() {
            break text.to_string();
        }
    };
    assert!(error.contains("invalid terminal frame"), "{error}");
    again.send(Message::text(r#"{"type":"close"}"#)).await.unwrap();
    while next(&mut again).await.is_some() {}
    let (_, info) = sandbox.ask(sandbox.get(&format!("/v1/processes/{id}"))).await;
    assert_eq!(info["status"], "running", "a viewer that goes leaves the process alone");
    // After its end: ready, what it said, exit. No error text of the kernel's.
    sandbox
        .post(&format!("/v1/processes/{id}/input"), json!({ "data": "y\n", "encoding": "text" }))
        .await;
    eventually("it has ended", async || {
        sandbox.ask(sandbox.get(&format!("/v1/processes/{id}"))).await.1["status"] == "exited"
    })
    .await;
    let mut late = open(&sandbox, &id, "").await;
    let mut all = String::new();
    loop {
        match next(&mut late).await.unwrap() {
            Message::Binary(bytes) => all.push_str(&String::from_utf8_lossy(&bytes)),
            Message::Text(text) => {
                assert!(text.contains("exit"), "{text}");
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(all.contains("first") && all.contains("second") && !all.contains("os error"), "{all}");
}

#[tokio::test]
async fn a_terminal_that_is_none_is_refused_before_the_upgrade_and_so_is_a_foreign_page() {
    let sandbox = Sandbox::new().await;
    let (_, plain) =
        sandbox.post("/v1/processes", json!({ "command": "sleep", "args": ["30"] })).await;
    let ask = async |path: String, origin: Option<&str>| {
        let mut request =
            format!("{}{path}", sandbox.url.replace("http", "ws")).into_client_request().unwrap();
        if let Some(origin) = origin {
            request.headers_mut().insert("origin", origin.parse().unwrap());
        }
        match connect_async(request).await {
            Err(tokio_tungstenite::tungstenite::Error::Http(response)) => {
                response.status().as_u16()
            }
            other => panic!("{other:?}"),
        }
    };
    let plain = plain["id"].as_str().unwrap();
    let socket =
        |id: &str, token: &str| format!("/v1/processes/{id}/terminal/ws?access_token={token}");
    assert_eq!(ask(socket(plain, TOKEN), None).await, 409);
    assert_eq!(ask(socket("proc_99", TOKEN), None).await, 404);
    let id = terminal(&sandbox, "sh", &[]).await;
    assert_eq!(ask(socket(&id, "wrong"), None).await, 401);
    assert_eq!(ask(socket(&id, TOKEN), Some("https://evil.example")).await, 403);
    let plain_get = sandbox.get(&format!("/v1/processes/{id}/terminal/ws"));
    assert_eq!(sandbox.ask(plain_get).await.0, 400);
}

/// Checklist F10, and the promise of the terminal: ten thousand times connected, nothing left.
#[tokio::test(flavor = "multi_thread")]
async fn f10_ten_thousand_reconnects_and_a_storm_of_resizes_leave_nothing() {
    let sandbox = Sandbox::new().await;
    let id = terminal(&sandbox, "sh", &["-c", "while :; do echo tick; sleep 0.01; done"]).await;
    let descriptors = || {
        let directory = format!("/proc/{}/fd", sandbox.server().as_raw_nonzero());
        std::fs::read_dir(directory).unwrap().count()
    };
    let round = async |from: usize, to: usize| {
        for _ in from..to {
            let mut socket = open(&sandbox, &id, "&since=99999999").await;
            let resize = Message::text(r#"{"type":"resize","cols":80,"rows":24}"#);
            socket.send(resize).await.unwrap();
            // Half leave politely, half do not.
            if from.is_multiple_of(2) {
                drop(socket.close(None).await);
            }
        }
    };
    round(0, 20).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let (descriptors_before, memory_before) = (descriptors(), super::files::memory(&sandbox));
    futures_util::future::join_all((0..8).map(|part| round(part, part + 1250))).await;
    eventually("what belonged to the viewers is gone", async || {
        descriptors() <= descriptors_before + 2
    })
    .await;
    let grown = super::files::memory(&sandbox).saturating_sub(memory_before);
    assert!(grown < 12 * 1024, "{grown} KiB");
    let (_, info) = sandbox.ask(sandbox.get(&format!("/v1/processes/{id}"))).await;
    assert_eq!(info["status"], "running");
}
