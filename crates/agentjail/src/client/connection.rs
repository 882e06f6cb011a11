//! One server, as one key sees it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use reqwest::{Client, Method, RequestBuilder, Response};
use serde::Deserialize;
use serde_json::Value;

/// How long a command waits for another that runs in its workspace, and how often it asks; in the server's words.
const TURN: Duration = Duration::from_secs(15);
const ASKED_AGAIN: Duration = Duration::from_millis(100);
const BUSY: &str = "another exec is in flight";

/// What to do about some refusals, in this program's words.
const REMEDIES: [(&str, &str); 4] = [
    (BUSY, "a workspace runs one command at a time: see `agentjail jails list --status running`"),
    ("unknown flavor", "`agentjail flavors list` on the server's machine tells which there are"),
    ("unknown image", "`agentjail images list` on the server's machine tells which there are"),
    ("no credential configured", "`agentjail cred put SERVICE` keeps a key"),
];

const DEFAULT_URL: &str = "http://127.0.0.1:7000";

/// What stands in `~/.config/agentjail/config.toml`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    url: Option<String>,
    key: Option<String>,
}

/// Sends requests. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Connection {
    client: Client,
    url: String,
    key: Option<String>,
}

impl Connection {
    /// What is said counts first, then the file, then the default.
    pub(super) fn new(url: Option<&str>, key: Option<&str>) -> anyhow::Result<Self> {
        let file = read_file()?;
        let url = url.map(str::to_owned).or(file.url).unwrap_or_else(|| DEFAULT_URL.to_owned());
        if !url.starts_with("http://") && !url.starts_with("https://") {
            bail!("--url {url}: a URL begins with http:// or https://");
        }
        let client = Client::builder().redirect(reqwest::redirect::Policy::none()).build()?;
        let key = key.map(str::to_owned).or(file.key).filter(|key| !key.is_empty());
        Ok(Self { client, url: url.trim_end_matches('/').to_owned(), key })
    }

    /// The same server, for whoever has this key.
    pub(super) fn with_key(&self, key: &str) -> Self {
        Self { key: Some(key.to_owned()), ..self.clone() }
    }

    pub(super) fn without_key(self) -> Self {
        Self { key: None, ..self }
    }

    pub(super) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.url));
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    /// Sends a request; an answer that is not a good one becomes an error in the server's words.
    pub(super) async fn send(&self, request: RequestBuilder) -> anyhow::Result<Response> {
        let response = request.send().await.with_context(|| {
            format!("no answer from {} (is `agentjail serve` running? see --url)", self.url)
        })?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let id = response.headers().get("x-request-id").cloned();
        let text = response.text().await.unwrap_or_default();
        let said = serde_json::from_str::<Value>(&text).ok();
        let said = said.as_ref().and_then(|said| said["error"].as_str()).unwrap_or(text.trim());
        let hint = match status.as_u16() {
            401 => " (see --key)".to_owned(),
            400..500 => REMEDIES
                .iter()
                .find(|(found, _)| said.contains(found))
                .map_or_else(String::new, |(_, remedy)| format!(" ({remedy})")),
            500.. => id.map_or_else(String::new, |id| {
                format!(" (request {})", id.to_str().unwrap_or_default())
            }),
            _ => String::new(),
        };
        bail!("{said}{hint}")
    }

    /// The JSON of an answer; null if there is none.
    pub(super) async fn json(&self, request: RequestBuilder) -> anyhow::Result<Value> {
        let text = self.send(request).await?.text().await?;
        if text.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&text).context("the server did not answer JSON: is this its URL?")
    }

    pub(super) async fn get(&self, path: &str, query: &[(&str, String)]) -> anyhow::Result<Value> {
        self.json(self.request(Method::GET, path).query(query)).await
    }

    pub(super) async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.json(self.request(Method::POST, path).json(body)).await
    }

    /// The same, of a command in a workspace, which takes one at a time: waits for its turn, for a while.
    pub(super) async fn post_in_turn(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        let end = Instant::now() + TURN;
        loop {
            match self.post(path, body).await {
                Err(error) if error.to_string().contains(BUSY) && Instant::now() < end => {
                    tokio::time::sleep(ASKED_AGAIN).await;
                }
                done => return done,
            }
        }
    }

    pub(super) async fn delete(&self, path: &str) -> anyhow::Result<()> {
        self.json(self.request(Method::DELETE, path)).await.map(drop)
    }
}

/// Part of a path: an id that cannot become another path.
pub(super) fn part(id: &str) -> anyhow::Result<&str> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    if id.is_empty() || id.starts_with('.') || !id.bytes().all(plain) {
        bail!("{id:?} is not an id");
    }
    Ok(id)
}

fn read_file() -> anyhow::Result<File> {
    let Some(path) = path() else { return Ok(File::default()) };
    match std::fs::read_to_string(&path) {
        Ok(text) => toml::from_str(&text).with_context(|| path.display().to_string()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(File::default()),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

#[expect(clippy::disallowed_methods, reason = "this crate reads the configuration")]
fn path() -> Option<PathBuf> {
    let given = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).filter(|p| p.is_absolute());
    let base = given.or_else(|| Some(std::env::home_dir()?.join(".config")))?;
    Some(base.join("agentjail/config.toml"))
}
