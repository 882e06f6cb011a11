//! The gateway and previews.

use e2e::house::{As, House, answer, id};
use reqwest::{Client, Method};
use serde_json::{Value, json};

const ACME: As<'_> = As("acme-key");

/// A server that says what it was asked, streams, and echoes over a WebSocket of its own making.
const SERVER: &str = r"
import base64, hashlib, http.server, sys, time
class H(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def log_message(self, *a): pass
    def do_GET(self):
        if self.headers.get('Upgrade') == 'websocket':
            key = self.headers['Sec-WebSocket-Key'] + '258EAFA5-E914-47DA-95CA-C5AB0DC85B11'
            self.send_response(101); self.send_header('Upgrade', 'websocket'); self.send_header('Connection', 'Upgrade')
            self.send_header('Sec-WebSocket-Accept', base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()); self.end_headers()
            while True:
                data = self.rfile.read(1)
                if not data: return
                self.wfile.write(data.upper()); self.wfile.flush()
        if self.path.startswith('/stream'):
            self.send_response(200); self.send_header('Transfer-Encoding', 'chunked'); self.end_headers()
            for n in range(3):
                self.wfile.write(b'2\r\n%d\n\r\n' % n); self.wfile.flush(); time.sleep(0.4)
            self.wfile.write(b'0\r\n\r\n'); return
        text = '\n'.join([self.command + ' ' + self.path] + sorted('%s: %s' % (k.lower(), v) for k, v in self.headers.items())).encode()
        self.send_response(418); self.send_header('Content-Length', str(len(text)))
        self.send_header('Set-Cookie', 'a=1'); self.send_header('Set-Cookie', 'b=2')
        for name in ('Clear-Site-Data', 'Strict-Transport-Security', 'Access-Control-Allow-Origin', 'Service-Worker-Allowed', 'Alt-Svc'): self.send_header(name, '*')
        self.end_headers(); self.wfile.write(text)
    def do_POST(self):
        n = 0
        if self.headers.get('Content-Length'): n = len(self.rfile.read(int(self.headers['Content-Length'])))
        else:
            while True:
                size = int(self.rfile.readline(), 16); n += len(self.rfile.read(size)); self.rfile.readline()
                if size == 0: break
        text = str(n).encode()
        self.send_response(200); self.send_header('Content-Length', str(len(text))); self.end_headers(); self.wfile.write(text)
class S(http.server.ThreadingHTTPServer): daemon_threads = True
s = S(('127.0.0.1', 8080), H); print('listening', flush=True); s.serve_forever()
";

/// A workspace with the server at work in it, and the stream that keeps it so.
async fn serving(house: &House, body: Value) -> (Value, reqwest::Response) {
    let made = house.workspace(body).await;
    let path = format!("/v1/workspaces/{}/exec/stream", id(&made));
    let body = json!({ "cmd": "python3", "args": ["-c", SERVER] });
    let mut stream = house.request(ACME, Method::POST, &path).json(&body).send().await.unwrap();
    let mut seen = String::new();
    while !seen.contains("listening") {
        let chunk = stream.chunk().await.unwrap();
        seen.push_str(&String::from_utf8_lossy(&chunk.unwrap_or_else(|| panic!("{seen}"))));
    }
    (made, stream)
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[tokio::test]
async fn a_preview_reaches_a_server_in_the_workspace_and_the_key_does_not() {
    let house = House::new().await;
    let (made, _stream) = serving(&house, json!({ "network": { "mode": "loopback" } })).await;
    let path = format!("/v1/workspaces/{}/ports/8080", id(&made));
    let get = |tail: &str| house.request(ACME, Method::GET, &format!("{path}{tail}"));
    let response = get("/a%2Fb//c?x=1&y=%20")
        .header("cookie", "api=1")
        .header("x-mine", "yes")
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 418);
    assert!(response.headers()["content-security-policy"].to_str().unwrap().contains("sandbox"));
    for name in [
        "set-cookie",
        "clear-site-data",
        "strict-transport-security",
        "access-control-allow-origin",
        "service-worker-allowed",
        "alt-svc",
    ] {
        assert!(!response.headers().contains_key(name), "{name} speaks for the API's origin");
    }
    let text = response.text().await.unwrap();
    assert!(text.starts_with("GET /a%2Fb//c?x=1&y=%20\n"), "{text}");
    assert!(text.contains("host: localhost:8080") && text.contains("x-mine: yes"), "{text}");
    assert!(
        !text.contains("acme-key") && !text.contains("authorization") && !text.contains("cookie"),
        "{text}"
    );
    assert!(get("").send().await.unwrap().text().await.unwrap().starts_with("GET /\n"));
    // Streams come as they are made, and bodies of any length go in.
    let mut stream = get("/stream").send().await.unwrap();
    let began = std::time::Instant::now();
    assert_eq!(stream.chunk().await.unwrap().unwrap(), "0\n");
    assert!(began.elapsed().as_millis() < 350, "{:?}", began.elapsed());
    let big = vec![b'x'; 24 << 20];
    let sent = house.request(ACME, Method::POST, &path).body(big).send().await.unwrap();
    assert_eq!(sent.text().await.unwrap(), (24 << 20).to_string());
    for (who, tail, status) in [
        (As("globex-key"), "/ports/8080/", 404),
        (ACME, "/ports/0/", 400),
        (ACME, "/ports/99999/", 400),
        (ACME, "/ports/8081/", 409),
    ] {
        let path = format!("/v1/workspaces/{}{tail}", id(&made));
        assert_eq!(house.get(who, &path).await.0, status, "{tail}");
    }
    let without = house.client.get(format!("{}{path}/", house.api)).send().await.unwrap();
    assert_eq!(without.status(), 401);
    let idle = house.workspace(json!({})).await;
    let (status, error) =
        house.get(ACME, &format!("/v1/workspaces/{}/ports/8080/", id(&idle))).await;
    assert!(status == 409 && error["error"].as_str().unwrap().contains("no live jail"), "{error}");
}

#[tokio::test]
async fn the_gateway_routes_by_host_name() {
    let port = free_port();
    let house = House::with(&["--gateway-addr", &format!("127.0.0.1:{port}")]).await;
    let gateway = format!("http://127.0.0.1:{port}");
    let domains = json!([{ "domain": "App.Test", "vm_port": 8080 }]);
    let (made, stream) =
        serving(&house, json!({ "network": { "mode": "loopback" }, "domains": domains })).await;
    assert_eq!(made["domains"][0]["domain"], "app.test");
    let client = Client::builder().no_proxy().build().unwrap();
    let ask = async |host: &str| {
        answer(client.get(format!("{gateway}/x?y")).header("host", host).send().await.unwrap())
            .await
    };
    let (status, text) = ask("APP.test:8080").await;
    let text = text.as_str().unwrap();
    assert!(status == 418 && text.starts_with("GET /x?y\n"), "{text}");
    assert!(text.contains("x-forwarded-host: APP.test:8080"), "{text}");
    let cookies = client.get(&gateway).header("host", "app.test").send().await.unwrap();
    assert_eq!(cookies.headers().get_all("set-cookie").iter().count(), 2, "none is lost");
    let (status, text) = ask("other.test").await;
    assert_eq!(
        (status, text.as_str().unwrap()),
        (404, "gateway: no workspace declares host other.test\n")
    );
    // A name belongs to one workspace, until that is gone.
    let (status, error) = house
        .post(
            As("globex-key"),
            "/v1/workspaces",
            json!({ "domains": [{ "domain": "app.TEST", "vm_port": 1 }] }),
        )
        .await;
    assert_eq!(status, 409, "{error}");
    let (_, config) = house.get(As("root-key"), "/v1/config").await;
    assert_eq!(config["gateway"]["bind_addr"], format!("127.0.0.1:{port}"));
    assert_eq!(house.get(ACME, "/v1/config").await.1["gateway"], Value::Null);
    drop(stream);
    e2e::house::eventually("nobody serves", async || ask("app.test").await.0 == 503).await;
    let (_, text) = ask("app.test").await;
    let text = text.as_str().unwrap();
    assert!(text.contains(id(&made)) && text.contains("8080"), "{text}");
    house.delete(ACME, &format!("/v1/workspaces/{}", id(&made))).await;
    assert_eq!(ask("app.test").await.0, 404);
    let (status, _) = house
        .post(
            As("globex-key"),
            "/v1/workspaces",
            json!({ "domains": [{ "domain": "app.test", "vm_port": 1 }] }),
        )
        .await;
    assert_eq!(status, 201);
}

#[tokio::test]
async fn websockets_pass_both_ways() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let port = free_port();
    let house = House::with(&["--gateway-addr", &format!("127.0.0.1:{port}")]).await;
    let domains = json!([{ "domain": "ws.test", "vm_port": 8080 }]);
    let (made, _stream) =
        serving(&house, json!({ "network": { "mode": "loopback" }, "domains": domains })).await;
    let api = house.api.trim_start_matches("http://").to_owned();
    let preview = format!("/v1/workspaces/{}/ports/8080/", id(&made));
    for (address, target, key) in [
        (format!("127.0.0.1:{port}"), "/", ""),
        (api, preview.as_str(), "authorization: Bearer acme-key\r\n"),
    ] {
        let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
        let head = format!(
            "GET {target} HTTP/1.1\r\nhost: ws.test\r\n{key}connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut read = vec![0; 4096];
        let mut seen = String::new();
        while !seen.contains("\r\n\r\n") {
            let n = stream.read(&mut read).await.unwrap();
            assert!(n > 0, "{seen}");
            seen.push_str(&String::from_utf8_lossy(&read[..n]));
        }
        let lower = seen.to_ascii_lowercase();
        assert!(
            seen.starts_with("HTTP/1.1 101")
                && lower.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="),
            "{seen}"
        );
        stream.write_all(b"hello").await.unwrap();
        let mut echoed = [0; 5];
        stream.read_exact(&mut echoed).await.unwrap();
        assert_eq!(&echoed, b"HELLO");
    }
}

#[tokio::test]
async fn a_backend_is_dialled_only_where_it_may_be() {
    let port = free_port();
    let flag = format!("127.0.0.1:{port}");
    for (allowed, status) in [(false, 502), (true, 200)] {
        let flags: Vec<&str> = if allowed {
            vec!["--gateway-addr", &flag, "--gateway-allow-private", "127.0.0.0/8"]
        } else {
            vec!["--gateway-addr", &flag]
        };
        let house = House::with(&flags).await;
        let backend = house.upstream.url();
        house
            .workspace(json!({ "domains": [{ "domain": "back.test", "backend_url": backend }] }))
            .await;
        let client = Client::builder().no_proxy().build().unwrap();
        let response = client
            .get(format!("http://{flag}/anything"))
            .header("host", "back.test")
            .send()
            .await
            .unwrap();
        assert_eq!(response.status().as_u16(), status, "{:?}", response.text().await);
    }
}
