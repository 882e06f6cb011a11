//! The network (D01–D05, D08).

use e2e::cli::Run;
use e2e::upstream::Upstream;
use tokio::net::TcpListener;

/// A stand-in on port 80 of one loopback address, so that tests do not meet.
async fn on_port_80(address: &str) -> Upstream {
    Upstream::on(TcpListener::bind((address, 80)).await.unwrap())
}

const TRY_EVERYTHING: &str = "import socket, sys\n\
    targets = sys.argv[1:]\n\
    for target in targets:\n\
    \x20 host, port = target.rsplit('/', 1)\n\
    \x20 for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):\n\
    \x20   try:\n\
    \x20     s = socket.socket(socket.AF_INET6 if ':' in host else socket.AF_INET, kind); s.settimeout(2); s.connect((host, int(port)))\n\
    \x20     s.send(b'GET / HTTP/1.0\\r\\n\\r\\n')\n\
    \x20     if s.recv(100): print('answered', target, kind)\n\
    \x20   except OSError: pass";

/// D01, D02: addresses by themselves lead nowhere, in any spelling, in any mode.
#[tokio::test]
async fn d01_d02_no_address_leads_out() {
    let upstream = on_port_80("127.80.0.1").await;
    let port = upstream.address.port().to_string();
    let mut words = vec!["python3".to_owned(), "-c".to_owned(), TRY_EVERYTHING.to_owned()];
    for host in [
        "127.80.0.1",
        "127.0.0.1",
        "::ffff:127.80.0.1",
        "::ffff:7f50:1",
        "64:ff9b::7f50:1",
        "0.0.0.0",
        "::",
        "::1",
        "169.254.169.254",
        "fd00:ec2::254",
        "10.0.0.1",
        "192.168.0.1",
        "172.17.0.1",
        "8.8.8.8",
        "1.1.1.1",
        "2606:4700:4700::1111",
        "198.18.0.1",
        "198.18.1.0",
        "255.255.255.255",
        "224.0.0.1",
    ] {
        for port in [port.as_str(), "53", "443", "853", "22", "7000", "8443"] {
            words.push(format!("{host}/{port}"));
        }
    }
    for flags in [
        vec![],
        vec!["--net", "loopback"],
        vec!["--allow", "only.test", "--allow-private", "127.0.0.0/8"],
    ] {
        let said = Run::new(&flags).command(&words).await;
        assert_eq!((said.code, said.stdout.as_str()), (0, ""), "{flags:?}: {}", said.stderr);
    }
    for spelling in ["2135949313", "0x7f500001", "0177.0120.0.1", "127.80.1"] {
        let said = Run::new(&["--allow", "only.test", "--allow-private", "127.0.0.0/8"])
            .command(&["curl", "-s", "-m", "3", &format!("http://{spelling}/")])
            .await;
        assert_ne!(said.code, 0, "{spelling}: {}", said.stdout);
    }
    assert!(upstream.seen().is_empty());
}

/// D01: no raw or ICMP socket, and no interface but `lo`.
#[tokio::test]
async fn d01_there_is_no_interface_but_lo() {
    for flags in [vec![], vec!["--net", "loopback"], vec!["--allow", "only.test"]] {
        let said = Run::new(&flags).sh("tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '; ping -c1 -W1 127.0.0.1 >/dev/null 2>&1 && echo pinged; true").await;
        assert_eq!(said.stdout, "lo\n", "{flags:?}");
    }
}

/// D08: what is allowed is reached by any client, without proxy variables.
#[tokio::test]
async fn d08_an_allowed_name_is_reached_by_any_client() {
    let upstream = on_port_80("127.80.0.2").await;
    let flags = [
        "--allow",
        "api.test",
        "--allow",
        "*.wild.test",
        "--resolve",
        "api.test=127.80.0.2",
        "--resolve",
        "a.b.wild.test=127.80.0.2",
        "--allow-private",
        "127.80.0.2/32",
    ];
    let fetch = "curl -s -m 5 http://api.test/curl; echo; \
        python3 -c \"import urllib.request; print(urllib.request.urlopen('http://API.test./python', timeout=5).read().decode())\"; \
        node -e \"fetch('http://a.b.wild.test/node').then(r => r.text()).then(console.log)\"; \
        curl -s -m 5 -x http://127.0.0.1:3128 http://api.test/proxy; echo; \
        curl -s -m 5 -p -x http://127.0.0.1:3128 http://api.test/connect; echo; curl -6 -s -m 5 http://api.test/v6";
    let said = Run::new(&flags).sh(fetch).await;
    let expected: String = ["curl", "python", "node", "proxy", "connect", "v6"]
        .map(|path| format!("{{\"path\":\"/{path}\"}}\n"))
        .concat();
    assert_eq!(format!("{}\n", said.stdout), expected, "{}", said.stderr);
    assert_eq!(upstream.seen().len(), 6);
}

/// D02, D03: a name that leads to a private address is not dialled, also by the proxy on the side.
#[tokio::test]
async fn d02_d03_a_name_that_leads_back_is_not_dialled() {
    let upstream = on_port_80("127.80.0.3").await;
    for address in ["127.80.0.3", "::ffff:127.80.0.3"] {
        let resolve = format!("api.test={address}");
        let said = Run::new(&["--allow", "api.test", "--resolve", &resolve, "--allow-private", "10.0.0.0/8"])
            .sh("curl -sS -m 5 http://api.test/; curl -s -m 5 -x http://127.0.0.1:3128 http://api.test/; curl -s -m 5 -p -x http://127.0.0.1:3128 http://api.test/")
            .await;
        assert_eq!(said.stdout.matches("has no public address").count(), 3, "{said:?}");
    }
    assert!(upstream.seen().is_empty());
}

/// D05, D06: the name that was allowed is the name that is asked for, in every request.
#[tokio::test]
async fn d05_d06_a_host_header_cannot_name_another() {
    let upstream = on_port_80("127.80.0.4").await;
    let flags = [
        "--allow",
        "api.test",
        "--resolve",
        "api.test=127.80.0.4",
        "--resolve",
        "other.test=127.80.0.4",
        "--allow-private",
        "127.80.0.4/32",
    ];
    let script = "import socket\n\
        def ask(*heads):\n\
        \x20 s = socket.create_connection(('api.test', 80), timeout=5)\n\
        \x20 for head in heads:\n\
        \x20   try: s.sendall(head.encode('latin-1'))\n\
        \x20   except OSError: return print('000')\n\
        \x20   data = b''\n\
        \x20   try:\n\
        \x20     while b'\\r\\n\\r\\n' not in data:\n\
        \x20       part = s.recv(4096)\n\
        \x20       if not part: break\n\
        \x20       data += part\n\
        \x20     print((data.split(b' ') + [b'000'])[1].decode()[:3])\n\
        \x20   except OSError: print('000')\n\
        ask('GET /one HTTP/1.1\\r\\nHost: api.test\\r\\n\\r\\n')\n\
        ask('GET /one HTTP/1.1\\r\\nHost: api.test\\r\\n\\r\\n', 'GET /two HTTP/1.1\\r\\nHost: other.test\\r\\n\\r\\n')\n\
        for host in ['other.test', 'api.test\\0.other.test', 'other.test\\0.api.test', 'api.test@other.test', 'other.test#api.test', 'api.test%00', ' other.test', 'api.test:8080', '127.80.0.4', '[::1]', '']:\n\
        \x20 ask('GET /x HTTP/1.1\\r\\nHost: ' + host + '\\r\\n\\r\\n')\n\
        ask('GET /x HTTP/1.1\\r\\n\\r\\n')\n\
        ask('GET /x HTTP/1.1\\r\\nHost: api.test\\r\\nHost: other.test\\r\\n\\r\\n')\n\
        ask('GET http://other.test/x HTTP/1.1\\r\\nHost: api.test\\r\\n\\r\\n')\n\
        ask('CONNECT other.test:80 HTTP/1.1\\r\\nHost: api.test\\r\\n\\r\\n')\n\
        ask('GET /x HTTP/1.1\\r\\nHost: api.test\\r\\nContent-Length: 3\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n0\\r\\n\\r\\nGET /smuggled HTTP/1.1\\r\\nHost: other.test\\r\\n\\r\\n')";
    let said = Run::new(&flags).python(script).await;
    let codes: Vec<&str> = said.stdout.lines().collect();
    assert_eq!(&codes[..3], ["200", "200", "403"], "{said:?}");
    assert!(
        codes[3..codes.len() - 1].iter().all(|code| ["400", "403", "000"].contains(code)),
        "{codes:?}"
    );
    let paths: Vec<String> = upstream
        .seen()
        .into_iter()
        .map(|seen| format!("{} {}", seen.headers["host"].to_str().unwrap(), seen.path))
        .collect();
    assert!(
        paths.iter().all(|path| ["api.test /one", "api.test /x"].contains(&path.as_str())),
        "{paths:?}"
    );
    assert!(paths.len() <= 3, "{paths:?}");
}

/// D05: the proxy on the side canonicalises before it compares.
#[tokio::test]
async fn d05_a_connect_cannot_name_another() {
    let upstream = on_port_80("127.80.0.5").await;
    let flags = [
        "--allow",
        "api.test",
        "--resolve",
        "api.test=127.80.0.5",
        "--resolve",
        "other.test=127.80.0.5",
        "--allow-private",
        "127.80.0.5/32",
    ];
    let script = "import socket\n\
        for target in ['api.test:80', 'other.test:80', 'other.test\\0.api.test:80', 'api.test@other.test:80', 'other.test:80#api.test', '127.80.0.5:80', '[::ffff:127.80.0.5]:80', '2135949317:80', 'api.test:22', 'API.TEST.:80', 'api.test%00:80', ':80', 'api.test:80:80']:\n\
        \x20 s = socket.create_connection(('127.0.0.1', 3128), timeout=5)\n\
        \x20 s.sendall(('CONNECT ' + target + ' HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n').encode('latin-1'))\n\
        \x20 print((s.recv(4096).split(b' ') + [b'000', b'000'])[1].decode())";
    let said = Run::new(&flags).python(script).await;
    let codes: Vec<&str> = said.stdout.lines().collect();
    assert_eq!(codes.len(), 13, "{said:?}");
    for (n, code) in codes.iter().enumerate() {
        assert_eq!(*code == "200", n == 0 || n == 9, "{n}: {codes:?}");
    }
    assert!(upstream.seen().is_empty());
}

/// D01: nothing is carried out in the names that are asked for, over UDP or TCP.
#[tokio::test]
async fn d01_dns_tells_nothing_and_asks_nobody() {
    let script = "import socket, struct\n\
        def query(name, kind):\n\
        \x20 q = struct.pack('>HHHHHH', 7, 0x100, 1, 0, 0, 0) + b''.join(bytes([len(l)]) + l.encode() for l in name.split('.')) + b'\\0' + struct.pack('>HH', kind, 1)\n\
        \x20 s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(3); s.sendto(q, ('127.0.0.1', 53)); a = s.recv(600)\n\
        \x20 t = socket.create_connection(('127.0.0.1', 53), timeout=3); t.sendall(struct.pack('>H', len(q)) + q); n = struct.unpack('>H', t.recv(2))[0]; b = t.recv(n)\n\
        \x20 assert a[2:] == b[2:], (a, b)\n\
        \x20 return a[3] & 15, struct.unpack('>H', a[6:8])[0]\n\
        for name, kind in [('api.test', 1), ('api.test', 28), ('api.test', 65), ('api.test', 16), ('c2VjcmV0.evil.test', 1), ('c2VjcmV0.api.test', 16), ('localhost', 1)]:\n\
        \x20 print(name, kind, *query(name, kind))\n\
        for garbage in [b'', b'\\0', b'x' * 1200, b'\\xff' * 12, b'\\0' * 12 + b'\\xc0\\x0c\\0\\1\\0\\1']:\n\
        \x20 s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.sendto(garbage, ('127.0.0.1', 53))\n\
        print(*query('api.test', 1))";
    let said = Run::new(&["--allow", "api.test"]).python(script).await;
    let expected = "api.test 1 0 1\napi.test 28 0 1\napi.test 65 0 0\napi.test 16 0 0\nc2VjcmV0.evil.test 1 3 0\nc2VjcmV0.api.test 16 3 0\nlocalhost 1 3 0\n0 1\n";
    assert_eq!(said.stdout, expected, "{}", said.stderr);
}

/// D02: jails do not reach each other.
#[tokio::test]
async fn d02_one_jail_does_not_reach_another() {
    let server = Run::new(&["--net", "loopback", "--timeout", "8"])
        .python("import socket\ns = socket.create_server(('0.0.0.0', 7123)); s.settimeout(4)\nprint('up', flush=True)\ntry: s.accept(); print('visited')\nexcept OSError: pass");
    let client = async {
        tokio::time::sleep(std::time::Duration::from_millis(800)).await;
        let words = [
            "python3",
            "-c",
            TRY_EVERYTHING,
            "127.0.0.1/7123",
            "0.0.0.0/7123",
            "::1/7123",
            "198.18.0.1/7123",
        ];
        for flags in [vec!["--net", "loopback"], vec!["--allow", "only.test:7123"]] {
            assert_eq!(Run::new(&flags).command(&words).await.stdout, "");
        }
    };
    let (server, ()) = tokio::join!(server, client);
    assert_eq!(server.stdout, "up\n");
}

/// A command cannot take the place of the phantom proxy or the resolver of its own jail.
#[tokio::test]
async fn handed_out_ports_cannot_be_taken_over() {
    let script = "import socket\n\
        for port, kind in [(53, socket.SOCK_DGRAM), (53, socket.SOCK_STREAM), (3128, socket.SOCK_STREAM), (443, socket.SOCK_STREAM)]:\n\
        \x20 for host in ('127.0.0.1', '0.0.0.0'):\n\
        \x20   s = socket.socket(socket.AF_INET, kind)\n\
        \x20   for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT): s.setsockopt(socket.SOL_SOCKET, option, 1)\n\
        \x20   try:\n\
        \x20     s.bind((host, port))\n\
        \x20     if kind == socket.SOCK_STREAM: s.listen()\n\
        \x20     print('took', host, port, kind)\n\
        \x20   except OSError: pass";
    assert_eq!(Run::new(&["--allow", "api.test"]).python(script).await.stdout, "");
}
