//! TLS (D06): the name in the hello is the name that was allowed.

use std::sync::Arc;

use e2e::cli::Run;
use e2e::user::{Delegated, can_become};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// A TLS server on port 443 of one loopback address; gives its certificate.
async fn tls_server(address: &str, tasks: &mut tokio::task::JoinSet<()>) -> String {
    let made = rcgen::generate_simple_self_signed(["api.test".to_owned(), "other.test".to_owned()])
        .unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let config = ServerConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind((address, 443)).await.unwrap();
    tasks.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut head = [0; 4096];
            drop(stream.read(&mut head).await);
            let name = stream.get_ref().1.server_name().unwrap_or("nobody").to_owned();
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{name}",
                name.len()
            );
            drop(stream.write_all(answer.as_bytes()).await);
            drop(stream.shutdown().await);
        }
    });
    made.cert.pem()
}

/// What a jail is started with that may reach `api.test`, and an `other.test` at the same address, as it is
/// with hosts of one provider.
const FLAGS: [&str; 8] = [
    "--allow",
    "api.test",
    "--resolve",
    "api.test=127.44.0.1",
    "--resolve",
    "other.test=127.44.0.1",
    "--allow-private",
    "127.44.0.1/32",
];

#[tokio::test]
async fn d06_another_name_is_reached_only_without_the_look_at_the_hello() {
    assert!(can_become(), "this test begins as root");
    let mut tasks = tokio::task::JoinSet::new();
    tls_server("127.44.0.2", &mut tasks).await;
    let flags = FLAGS.map(|flag| flag.replace("127.44.0.1", "127.44.0.2"));
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let script = "import socket, ssl\n\
        context = ssl.create_default_context(); context.check_hostname = False; context.verify_mode = ssl.CERT_NONE\n\
        try:\n\
        \x20 t = context.wrap_socket(socket.create_connection(('api.test', 443), timeout=5), server_hostname='other.test')\n\
        \x20 t.sendall(b'GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n'); print(t.recv(4096).split(b'\\r\\n\\r\\n')[1].decode())\n\
        except OSError: print('refused')";
    let delegated = Delegated::new();
    for (run, said) in [
        (Run::new(&flags), "refused\n"),
        (Run::of_user(&delegated, &flags), "refused\n"),
        (Run::without("hello-name", &flags), "other.test\n"),
        (Run::of_user_without(&delegated, "hello-name", &flags), "other.test\n"),
    ] {
        let got = run.python(script).await;
        assert_eq!(got.stdout, said, "{}", got.stderr);
    }
}

#[tokio::test]
async fn d06_the_name_in_the_hello_must_be_the_name_that_was_dialled() {
    let mut tasks = tokio::task::JoinSet::new();
    tls_server("127.44.0.1", &mut tasks).await;
    let script = "import socket, ssl\n\
        context = ssl.create_default_context(); context.check_hostname = False; context.verify_mode = ssl.CERT_NONE\n\
        def ask(name, pieces=None, proxy=None):\n\
        \x20 try:\n\
        \x20   s = socket.create_connection(proxy or ('api.test', 443), timeout=5)\n\
        \x20   if proxy: s.sendall(b'CONNECT api.test:443 HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n'); s.recv(4096)\n\
        \x20   t = context.wrap_socket(s, server_hostname=name)\n\
        \x20   t.sendall(b'GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n'); print(t.recv(4096).split(b'\\r\\n\\r\\n')[1].decode())\n\
        \x20 except OSError as e: print('refused')\n\
        for proxy in (None, ('127.0.0.1', 3128)):\n\
        \x20 ask('api.test', proxy=proxy); ask('API.test', proxy=proxy); ask('other.test', proxy=proxy); ask(None, proxy=proxy); ask('127.44.0.1', proxy=proxy)\n\
        s = socket.create_connection(('api.test', 443), timeout=5)\n\
        s.sendall(b'GET / HTTP/1.1\\r\\nHost: api.test\\r\\n\\r\\n')\n\
        try: print('plain', s.recv(100))\n\
        except OSError: print('refused')\n\
        i, o = ssl.MemoryBIO(), ssl.MemoryBIO(); t = context.wrap_bio(i, o, server_hostname='api.test')\n\
        try: t.do_handshake()\n\
        except ssl.SSLWantReadError: pass\n\
        hello = o.read(); s = socket.create_connection(('api.test', 443), timeout=5); s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)\n\
        for n in range(0, len(hello), 40): s.sendall(hello[n:n + 40])\n\
        print('fragmented', s.recv(1) == b'\\x16')";
    assert!(can_become(), "this test begins as root");
    let delegated = Delegated::new();
    for run in [Run::new(&FLAGS), Run::of_user(&delegated, &FLAGS)] {
        let said = run.python(script).await;
        let one = "api.test\napi.test\nrefused\nrefused\nrefused\n";
        let plain = "plain b''\n";
        let got = said.stdout.replace(plain, "refused\n");
        assert_eq!(got, format!("{one}{one}refused\nfragmented True\n"), "{}", said.stderr);
    }
}
