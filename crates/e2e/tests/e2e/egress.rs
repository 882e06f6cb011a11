//! An allowlist at work: any port, networks, limits, what is refused, and a policy that changes.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use e2e::cli::Run;
use e2e::house::{As, House, eventually};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

const PRIVATE: [&str; 2] = ["--allow-private", "127.0.0.0/8"];

/// A server that answers each line with the same line.
async fn echo(address: &str) -> Echo {
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            connections.spawn(async move {
                let (mut read, mut write) = stream.split();
                drop(tokio::io::copy(&mut read, &mut write).await);
            });
        }
    });
    Echo { address, _tasks: tasks }
}

/// Answers for as long as it is held.
struct Echo {
    address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Echo {
    fn port(&self) -> u16 {
        self.address.port()
    }
}

const SAY: &str = "import socket,sys\ns=socket.create_connection((sys.argv[1],int(sys.argv[2])),5)\ns.sendall(b'hello')\nprint(s.recv(9).decode())";

fn json_of(said: &e2e::cli::Said) -> Value {
    serde_json::from_str(&said.stdout).unwrap_or_else(|_| panic!("{said:?}"))
}

#[tokio::test]
async fn any_port_by_name_and_addresses_by_network() {
    let server = echo("127.82.0.9:0").await;
    let port = server.port().to_string();
    let allow = format!("db.test:{port}");
    let flags = [&["--allow", &allow, "--resolve", "db.test=127.82.0.9"], &PRIVATE[..]].concat();
    let said = Run::new(&flags).command(&["python3", "-c", SAY, "db.test", &port]).await;
    assert_eq!(said.stdout, "hello\n", "{said:?}");
    // By address: of an allowed network, and of another.
    let network = format!("203.0.113.0/24:{port}");
    let flags =
        [&["--allow", &network, "--json", "--allow-private", "203.0.113.0/24"][..]].concat();
    let dial = "import socket\nfor a in ('203.0.113.5','203.0.114.5'):\n try: socket.create_connection((a,int(__import__('sys').argv[1])),2)\n except OSError as e: print(a, type(e).__name__)";
    let said = Run::new(&flags).command(&["timeout", "5", "python3", "-c", dial, &port]).await;
    let refused = json_of(&said)["network"]["refused"].clone();
    let hosts: Vec<&str> =
        refused.as_array().unwrap().iter().map(|r| r["host"].as_str().unwrap()).collect();
    // The first was let through (to nowhere); the second was not.
    assert_eq!(hosts, ["203.0.114.5"], "{said:?}");
    assert_eq!(refused[0]["reason"], "address-not-allowed");
    assert_eq!(refused[0]["rule"], format!("203.0.114.5:{port}"));
}

#[tokio::test]
async fn every_refusal_has_a_reason_and_the_rule_that_would_allow_it() {
    let script = "import socket\n\
        def tcp(h,p):\n try: socket.create_connection((h,p),3).recv(1)\n except OSError: pass\n\
        def udp(h,p):\n s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.connect((h,p)); s.send(b'x')\n s.settimeout(2)\n try: s.recv(9); print('answered')\n except ConnectionRefusedError: print('refused')\n except OSError as e: print(e)\n\
        tcp('evil.test',443)\n\
        tcp('api.test',22)\n\
        tcp('198.51.100.7',443)\n\
        tcp('198.51.100.7',8080)\n\
        udp('api.test',443)\n\
        udp('192.0.2.1',123)";
    let flags = ["--json", "--allow", "api.test", "--resolve", "api.test=127.0.0.1"];
    let said = Run::new(&flags).python(script).await;
    let result = json_of(&said);
    assert_eq!(result["stdout"], "refused\nrefused\n");
    let refused: Vec<Value> = result["network"]["refused"].as_array().unwrap().clone();
    let find = |reason: &str, host: &str, port: u16| {
        let fits = |r: &&Value| r["reason"] == reason && r["host"] == host && r["port"] == port;
        refused
            .iter()
            .find(fits)
            .unwrap_or_else(|| panic!("{reason} {host}:{port} in {refused:#?}"))
    };
    assert_eq!(find("host-not-allowed", "evil.test", 0)["rule"], "evil.test");
    assert_eq!(find("port-not-allowed", "api.test", 22)["rule"], "api.test:22");
    assert_eq!(find("address-not-allowed", "198.51.100.7", 443)["rule"], "198.51.100.7");
    assert_eq!(find("address-not-allowed", "198.51.100.7", 8080)["rule"], "198.51.100.7:8080");
    assert_eq!(find("udp-not-allowed", "api.test", 443)["protocol"], "udp");
    assert_eq!(find("udp-not-allowed", "192.0.2.1", 123)["rule"], Value::Null);
    // And told to a person.
    let flags = ["--allow", "api.test", "--resolve", "api.test=127.0.0.1"];
    let said = Run::new(&flags).python(script).await;
    assert!(
        said.stderr.contains("refused tcp api.test:22 (port-not-allowed; --allow api.test:22)"),
        "{said:?}"
    );
}

#[tokio::test]
async fn d03_a_name_that_leads_to_private_addresses_is_refused_by_that_name() {
    let flags = ["--json", "--allow", "api.test:8080", "--resolve", "api.test=10.0.0.1"];
    let said = Run::new(&flags).command(&["python3", "-c", SAY, "api.test", "8080"]).await;
    let refused = &json_of(&said)["network"]["refused"][0];
    assert_eq!((&refused["reason"], &refused["port"]), (&json!("private-address"), &json!(8080)));
}

#[tokio::test]
async fn what_a_jail_sends_and_receives_is_counted_and_limited() {
    let server = echo("127.82.0.10:0").await;
    let port = server.port().to_string();
    let allow = format!("db.test:{port}");
    let base =
        [&["--json", "--allow", &allow, "--resolve", "db.test=127.82.0.10"], &PRIVATE[..]].concat();
    let said = Run::new(&base).command(&["python3", "-c", SAY, "db.test", &port]).await;
    let used = &json_of(&said)["network"];
    assert_eq!((&used["sent_bytes"], &used["received_bytes"]), (&json!(5), &json!(5)));
    assert_eq!(used["connections"], 1);
    // A volume.
    let flood = "import socket,sys\ns=socket.create_connection(('db.test',int(sys.argv[1])),5)\nn=0\ntry:\n while n < 9000000:\n  s.sendall(b'x'*1000); n+=len(s.recv(1000))\nexcept OSError: pass\nprint(n)";
    let limited = [&base[..], &["--net-bytes", "100000"]].concat();
    let said = Run::new(&limited).command(&["timeout", "10", "python3", "-c", flood, &port]).await;
    let used = &json_of(&said)["network"];
    let total = used["sent_bytes"].as_u64().unwrap() + used["received_bytes"].as_u64().unwrap();
    assert!((100_000..300_000).contains(&total), "{said:?}");
    // A rate.
    let slow = [&base[..], &["--net-bytes-per-sec", "20000"]].concat();
    let send = "import socket,sys\ns=socket.create_connection(('db.test',int(sys.argv[1])),5)\nn=0\nfor _ in range(5):\n s.sendall(b'x'*2000)\n m=0\n while m<2000: m+=len(s.recv(2000))\n n+=m\nprint(n)";
    let began = Instant::now();
    let said = Run::new(&slow).command(&["python3", "-c", send, &port]).await;
    assert_eq!(json_of(&said)["stdout"], "10000\n");
    assert!(began.elapsed() > Duration::from_millis(800), "{:?}", began.elapsed());
    // A number of connections.
    let few = [&base[..], &["--net-connections-per-sec", "2"]].concat();
    let many = "import socket,sys\nok=0\nfor _ in range(6):\n s=socket.create_connection(('db.test',int(sys.argv[1])),5)\n s.sendall(b'x')\n try: ok+=len(s.recv(1))\n except OSError: pass\nprint(ok)";
    let said = Run::new(&few).command(&["python3", "-c", many, &port]).await;
    assert_eq!(json_of(&said)["stdout"], "2\n", "{said:?}");
    assert_eq!(json_of(&said)["network"]["refused"][0]["reason"], "rate-limit");
    // One at a time, on any of the ports, tunnels included.
    let one = [&base[..], &["--net-connections", "1"]].concat();
    let two = "import socket,sys\np=int(sys.argv[1])\n\
        def direct():\n s=socket.create_connection(('db.test',p),5); s.settimeout(0.5); s.sendall(b'x')\n try: return s, s.recv(1)==b'x'\n except OSError: return s, False\n\
        def tunnel():\n s=socket.create_connection(('127.0.0.1',3128),5); s.settimeout(0.5); s.sendall(f'CONNECT db.test:{p} HTTP/1.1\\r\\nHost: db.test:{p}\\r\\n\\r\\n'.encode())\n try: return s, b' 200' in s.recv(99)\n except OSError: return s, False\n\
        a=direct(); b=tunnel(); a[0].close(); b[0].close()\n\
        c=tunnel(); d=direct(); print(a[1], b[1], c[1], d[1])";
    let said = Run::new(&one).command(&["python3", "-c", two, &port]).await;
    assert_eq!(json_of(&said)["stdout"], "True False True False\n", "{said:?}");
}

#[tokio::test]
async fn d08_a_policy_is_replaced_while_the_jail_runs() {
    let server = echo("127.82.0.11:0").await;
    let port = server.port();
    let house = House::with(&[
        "--egress-resolve",
        "db.test=127.82.0.11",
        "--egress-resolve",
        "other.test=127.82.0.11",
        "--egress-allow-private",
        "127.0.0.0/8",
    ])
    .await;
    // Says on each line whether the kept connection lives, and whether a new one can be had.
    let code = format!(
        "import socket,time\n\
        def dial(h):\n try:\n  s=socket.create_connection((h,{port}),2); s.settimeout(2); s.sendall(b'a'); return s if s.recv(1)==b'a' else None\n except OSError: return None\n\
        kept=dial('db.test')\n\
        while True:\n\
        \x20try: kept.sendall(b'b'); lives=kept.recv(1)==b'b'\n\
        \x20except OSError: lives=False\n\
        \x20print(lives, dial('db.test') is not None, dial('other.test') is not None, flush=True)\n\
        \x20time.sleep(0.1)\n"
    );
    let network = json!({ "mode": "allowlist", "domains": [format!("db.test:{port}")] });
    let body =
        json!({ "language": "python", "code": code, "network": network, "timeout_secs": 60 });
    let mut running = JoinSet::new();
    running.spawn(house.request(As("acme-key"), Method::POST, "/v1/runs").json(&body).send());
    let row = async || {
        let (_, jails) = house.get(As("acme-key"), "/v1/jails?status=running").await;
        jails["rows"][0].clone()
    };
    eventually("it runs", async || {
        row().await["stdout"].as_str().unwrap_or_default().contains("True True False")
    })
    .await;
    let id = row().await["id"].as_i64().unwrap();
    let path = format!("/v1/jails/{id}/network");
    let put = async |who: &str, domains: Value| {
        let request =
            house.request(As(who), Method::PUT, &path).json(&json!({ "domains": domains }));
        e2e::house::answer(request.send().await.unwrap()).await
    };
    assert_eq!(put("globex-key", json!([])).await.0, 404);
    let (status, refused) = put("acme-key", json!(["a b"])).await;
    assert!(status == 400 && refused["error"].as_str().unwrap().contains("network.domains[0]"));
    assert_eq!(put("acme-key", json!(["db.test:25"])).await.0, 400);
    let (status, answer) =
        put("acme-key", json!([format!("other.test:{port}"), "db.test:4444"])).await;
    assert_eq!((status, &answer["cut"]), (200, &json!(1)), "{answer}");
    let tail = async |expected: &str| {
        eventually(expected, async || {
            let (_, row) = house.get(As("acme-key"), &format!("/v1/jails/{id}")).await;
            row["stdout"].as_str().unwrap_or_default().ends_with(&format!("{expected}\n"))
        })
        .await;
    };
    tail("False False True").await;
    assert_eq!(put("acme-key", json!([])).await.0, 200);
    tail("False False False").await;
    running.abort_all();
    eventually("it has ended", async || put("acme-key", json!([])).await.0 == 409).await;
    let path = format!("/v1/jails/{id}");
    eventually("its row is closed", async || {
        house.get(As("acme-key"), &path).await.1["network"]["refused"].is_array()
    })
    .await;
    let (_, row) = house.get(As("acme-key"), &path).await;
    let reasons: Vec<&str> = row["network"]["refused"]
        .as_array()
        .unwrap()
        .iter()
        .map(|refused| refused["reason"].as_str().unwrap())
        .collect();
    assert!(
        reasons.contains(&"port-not-allowed") && reasons.contains(&"host-not-allowed"),
        "{reasons:?}"
    );
}

/// On a kept HTTP connection, every request is judged by the policy there is then.
#[tokio::test]
async fn a_kept_connection_does_not_outlive_the_policy() {
    let upstream = e2e::upstream::Upstream::on(TcpListener::bind("127.82.0.13:80").await.unwrap());
    let house = House::with(&[
        "--egress-resolve",
        "web.test=127.82.0.13",
        "--egress-allow-private",
        "127.0.0.0/8",
    ])
    .await;
    let code = "import socket,time\n\
        s=socket.create_connection(('web.test',80),5); s.settimeout(5)\n\
        while True:\n\
        \x20s.sendall(b'GET /v1/models HTTP/1.1\\r\\nHost: web.test\\r\\n\\r\\n'); time.sleep(0.1)\n\
        \x20print(s.recv(65536).split(b' ')[1].decode(), flush=True)\n";
    let network = json!({ "mode": "allowlist", "domains": ["web.test"] });
    let body =
        json!({ "language": "python", "code": code, "network": network, "timeout_secs": 60 });
    let mut running = JoinSet::new();
    running.spawn(house.request(As("acme-key"), Method::POST, "/v1/runs").json(&body).send());
    let stdout = async || {
        let (_, jails) = house.get(As("acme-key"), "/v1/jails?limit=1").await;
        let row = jails["rows"][0].clone();
        (row["id"].as_i64().unwrap_or(0), row["stdout"].as_str().unwrap_or_default().to_owned())
    };
    eventually("it is answered", async || stdout().await.1.contains("200")).await;
    let path = format!("/v1/jails/{}/network", stdout().await.0);
    let request = house.request(As("acme-key"), Method::PUT, &path).json(&json!({ "domains": [] }));
    assert_eq!(e2e::house::answer(request.send().await.unwrap()).await.0, 200);
    eventually("it is refused", async || {
        let said = stdout().await.1;
        said.ends_with("403\n") && !said[said.find("403").unwrap()..].contains("200")
    })
    .await;
    drop(upstream);
}

#[tokio::test]
async fn limits_of_a_network_are_checked_and_shown() {
    let house = House::new().await;
    let with = |limits: Value| {
        json!({ "language": "bash", "code": "true",
            "network": { "mode": "allowlist", "domains": ["a.test"], "limits": limits } })
    };
    for field in ["connections", "connections_per_second", "bytes_per_second", "bytes"] {
        let (status, answer) =
            house.post(As("acme-key"), "/v1/runs", with(json!({ field: 0 }))).await;
        assert!(status == 400 && answer["error"].as_str().unwrap().contains(field), "{answer}");
    }
    let (status, result) =
        house.post(As("acme-key"), "/v1/runs", with(json!({ "bytes": 5 }))).await;
    assert_eq!((status, &result["network"]["refused"]), (201, &json!([])));
    let (_, jails) = house.get(As("acme-key"), "/v1/jails").await;
    assert_eq!(jails["rows"][0]["config"]["network_limits"], json!({ "bytes": 5 }));
}

#[tokio::test]
async fn dns_over_tcp_answers_as_over_udp_and_gives_no_keys_for_names() {
    let ask = "import socket,struct\n\
        def q(name,t):\n return struct.pack('>HHHHHH',7,256,1,0,0,0)+b''.join(bytes([len(p)])+p for p in name.encode().split(b'.'))+b'\\0'+struct.pack('>HH',t,1)\n\
        def tcp(m):\n s=socket.create_connection(('127.0.0.1',53),3); s.sendall(struct.pack('>H',len(m))+m); n=struct.unpack('>H',s.recv(2))[0]; return s.recv(n)\n\
        def udp(m):\n s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.sendto(m,('127.0.0.1',53)); return s.recv(999)\n\
        for name,t in (('api.test',1),('api.test',28),('api.test',65),('api.test',64),('evil.test',1)):\n\
        \x20a,b=tcp(q(name,t)),udp(q(name,t)); assert a==b; print(t, a[3]&15, struct.unpack('>H',a[6:8])[0])";
    let said = Run::new(&["--allow", "api.test"]).python(ask).await;
    assert_eq!(said.stdout, "1 0 1\n28 0 1\n65 0 0\n64 0 0\n1 3 0\n", "{said:?}");
}
