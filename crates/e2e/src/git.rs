//! A git server: real repositories, served by git's own `http-backend`, over TLS or plain.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// A server and its repositories.
#[derive(Debug)]
pub struct GitServer {
    pub address: SocketAddr,
    /// PEM of the authority to trust.
    pub authority: String,
    root: TempDir,
    seen: Arc<Mutex<Vec<String>>>,
    _tasks: JoinSet<()>,
}

#[derive(Clone)]
struct Shared {
    root: PathBuf,
    /// What `Authorization` must be for repositories below `/private`.
    password: Option<String>,
    seen: Arc<Mutex<Vec<String>>>,
}

impl GitServer {
    /// Serves over TLS, as `git.test`.
    ///
    /// # Panics
    ///
    /// If the address is taken.
    pub async fn tls(address: &str) -> Self {
        let names = ["git.test".to_owned(), "other.test".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let config = ServerConfig::builder_with_provider(provider.into())
            .with_safe_default_protocol_versions()
            .expect("its own defaults")
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .expect("a pair");
        let listener = TcpListener::bind(address).await.expect("a free address");
        let at = listener.local_addr().expect("an address");
        let tls = Tls { listener, acceptor: TlsAcceptor::from(Arc::new(config)) };
        Self::start(at, made.cert.pem(), None, |router| async move {
            drop(axum::serve(tls, router).await);
        })
    }

    /// Serves without TLS; what is below `/private` wants a password.
    ///
    /// # Panics
    ///
    /// If there is no free port.
    pub async fn plain(password: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let at = listener.local_addr().expect("an address");
        Self::start(at, String::new(), Some(password.to_owned()), |router| async move {
            drop(axum::serve(listener, router).await);
        })
    }

    fn start<F: Future<Output = ()> + Send + 'static>(
        address: SocketAddr,
        authority: String,
        password: Option<String>,
        serve: impl FnOnce(Router) -> F,
    ) -> Self {
        let root = tempfile::tempdir().expect("a temporary directory");
        let seen = Arc::<Mutex<Vec<String>>>::default();
        let shared = Shared { root: root.path().to_owned(), password, seen: Arc::clone(&seen) };
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(Router::new().fallback(answer).with_state(shared)));
        Self { address, authority, root, seen, _tasks: tasks }
    }

    /// What was asked for, as `METHOD path authorization`.
    pub fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes a repository of what a script does in a work tree; gives the hash of its last commit.
    ///
    /// # Panics
    ///
    /// If the script fails.
    pub async fn repository(&self, path: &str, script: &str) -> String {
        let work = tempfile::tempdir().expect("a temporary directory");
        let bare = self.root.path().join(path);
        let whole = format!(
            "set -eu\nexport GIT_CONFIG_GLOBAL=/dev/null HOME=/nonexistent\n\
             git init --quiet --initial-branch=main .\n\
             git config user.name tester; git config user.email tester@example.com\n\
             {script}\n\
             git clone --quiet --bare --no-local . '{bare}'\n\
             git -C '{bare}' config uploadpack.allowReachableSHA1InWant true\n\
             git rev-parse HEAD",
            bare = bare.display()
        );
        let output = Command::new("sh")
            .args(["-c", &whole])
            .current_dir(work.path())
            .output()
            .await
            .expect("there is a shell");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Where a repository is, for a test that puts something into it.
    pub fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }
}

struct Tls {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl axum::serve::Listener for Tls {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let Ok((stream, address)) = self.listener.accept().await else { continue };
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

async fn answer(State(shared): State<Shared>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let text = |name: HeaderName| {
        let value = parts.headers.get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    let (authorization, path) = (text(AUTHORIZATION), parts.uri.path().to_owned());
    let line = format!("{} {} {authorization}", parts.method, parts.uri);
    shared.seen.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    if let Some(password) = shared.password.as_ref().filter(|_| path.starts_with("/private"))
        && authorization != *password
    {
        let mut refused = status(StatusCode::UNAUTHORIZED);
        refused.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=git"));
        return refused;
    }
    let body = axum::body::to_bytes(body, 64 << 20).await.unwrap_or_default();
    let variables = [
        ("REQUEST_METHOD", parts.method.to_string()),
        ("PATH_INFO", path),
        ("QUERY_STRING", parts.uri.query().unwrap_or_default().to_owned()),
        ("CONTENT_TYPE", text(CONTENT_TYPE)),
        ("HTTP_CONTENT_ENCODING", text(CONTENT_ENCODING)),
        ("HTTP_GIT_PROTOCOL", text(HeaderName::from_static("git-protocol"))),
        ("CONTENT_LENGTH", body.len().to_string()),
    ];
    backend(&shared.root, &variables, &body)
        .await
        .unwrap_or_else(|_| status(StatusCode::INTERNAL_SERVER_ERROR))
}

async fn backend(root: &Path, variables: &[(&str, String)], body: &Bytes) -> io::Result<Response> {
    let mut child = Command::new("git")
        .arg("http-backend")
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        // The repositories are the tester's own, whoever that is.
        .env("GIT_CONFIG_COUNT", "1")
        .env("GIT_CONFIG_KEY_0", "safe.directory")
        .env("GIT_CONFIG_VALUE_0", "*")
        .envs(variables.iter().map(|(name, value)| (*name, value)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut stdin = child.stdin.take().expect("its input is a pipe");
    stdin.write_all(body).await?;
    drop(stdin);
    let output = child.wait_with_output().await?.stdout;
    let end = output.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap_or(output.len());
    let mut response = Response::new(Body::from(output[(end + 4).min(output.len())..].to_vec()));
    for line in String::from_utf8_lossy(&output[..end]).lines() {
        let Some((name, value)) = line.split_once(": ") else { continue };
        if name.eq_ignore_ascii_case("status") {
            let code = value.split(' ').next().and_then(|code| code.parse().ok());
            *response.status_mut() = code.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        } else if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse()) {
            response.headers_mut().insert(name, value);
        }
    }
    Ok(response)
}

fn status(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}
