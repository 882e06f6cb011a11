//! A stand-in for the APIs on the far side of the internet, on loopback. It remembers what it saw.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ws::{Message, WebSocketUpgrade};
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_TYPE, LOCATION, SET_COOKIE};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use futures_util::stream;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// One request as the upstream saw it.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: String,
    pub path: String,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

/// A running stand-in. It ends when this value is dropped.
#[derive(Debug)]
pub struct Upstream {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    _server: JoinSet<()>,
}

impl Upstream {
    /// Starts one on a free port.
    ///
    /// # Panics
    ///
    /// If no port is free.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        Self::on(listener)
    }

    /// Starts one on a listener.
    ///
    /// # Panics
    ///
    /// If the listener has no address.
    pub fn on(listener: TcpListener) -> Self {
        let address = listener.local_addr().expect("a bound listener has an address");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let router = Router::new()
            .route("/ws", any(websocket))
            .fallback(answer)
            .with_state(Arc::clone(&seen));
        let mut server = JoinSet::new();
        server.spawn(async move {
            axum::serve(listener, router).await.expect("the stand-in serves");
        });
        Self { address, seen, _server: server }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Streams without end that are being sent.
    pub fn open_floods(&self) -> usize {
        FLOODS.load(Ordering::SeqCst)
    }

    /// Everything it saw so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn answer(State(seen): State<Arc<Mutex<Vec<Seen>>>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 64 << 20).await.unwrap_or_default().to_vec();
    let path = parts.uri.path_and_query().map(|path| path.as_str().to_owned()).unwrap_or_default();
    let stream = String::from_utf8_lossy(&body).contains("\"stream\":true");
    seen.lock().unwrap_or_else(PoisonError::into_inner).push(Seen {
        method: parts.method.to_string(),
        path: path.clone(),
        headers: parts.headers.clone(),
        body,
    });
    let headers = parts.headers;
    // As some servers do.
    if parts.method == Method::TRACE {
        return format!("{headers:?}").into_response();
    }
    match parts.uri.path() {
        "/redirect" => {
            (StatusCode::FOUND, [(LOCATION, "http://elsewhere.example/take")]).into_response()
        }
        "/cookies" => {
            let mut response = "two".into_response();
            for cookie in ["a=1", "b=2"] {
                response.headers_mut().append(SET_COOKIE, cookie.parse().expect("a cookie"));
            }
            response
        }
        "/endless" => endless(),
        "/silent" => {
            tokio::time::sleep(Duration::from_secs(30)).await;
            StatusCode::OK.into_response()
        }
        "/flood" => flood(),
        "/v1/chat/completions" if stream => chat_stream(),
        "/v1/messages" if stream => messages_stream(),
        _ => axum::Json(serde_json::json!({ "path": path })).into_response(),
    }
}

async fn websocket(
    State(seen): State<Arc<Mutex<Vec<Seen>>>>,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Response {
    seen.lock().unwrap_or_else(PoisonError::into_inner).push(Seen {
        method: "GET".to_owned(),
        path: "/ws".to_owned(),
        headers,
        body: Vec::new(),
    });
    upgrade.on_upgrade(|mut socket| async move {
        while let Some(Ok(message)) = socket.recv().await {
            if let Message::Text(text) = message {
                drop(socket.send(Message::Text(format!("echo {text}").into())).await);
            }
        }
    })
}

/// A stream that never ends by itself.
fn endless() -> Response {
    let ticks = stream::unfold(0_u64, |n| async move {
        tokio::time::sleep(Duration::from_millis(20)).await;
        Some((Ok::<_, Infallible>(format!("data: {n}\n\n")), n + 1))
    });
    events(Body::from_stream(ticks))
}

/// Floods that are being sent.
static FLOODS: AtomicUsize = AtomicUsize::new(0);

/// Counts itself while it lives.
struct Flood;

impl Drop for Flood {
    fn drop(&mut self) {
        FLOODS.fetch_sub(1, Ordering::SeqCst);
    }
}

/// As much as a client takes, without end.
fn flood() -> Response {
    FLOODS.fetch_add(1, Ordering::SeqCst);
    let chunks = stream::unfold(Flood, |flood| async {
        Some((Ok::<_, Infallible>(vec![b'x'; 64 * 1024]), flood))
    });
    Response::new(Body::from_stream(chunks))
}

/// A chat completion as the OpenAI API streams it.
fn chat_stream() -> Response {
    let chunk = |content: &str| {
        let delta = serde_json::json!({
            "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "stand-in",
            "choices": [{ "index": 0, "delta": { "content": content }, "finish_reason": null }],
        });
        format!("data: {delta}\n\n")
    };
    spaced(vec![chunk("Hello"), chunk(" from the model"), "data: [DONE]\n\n".to_owned()])
}

/// A message as the Anthropic API streams it.
fn messages_stream() -> Response {
    let event = |name: &str, value: serde_json::Value| format!("event: {name}\ndata: {value}\n\n");
    let text = |text: &str| {
        event(
            "content_block_delta",
            serde_json::json!({
                "type": "content_block_delta", "index": 0, "delta": { "type": "text_delta", "text": text },
            }),
        )
    };
    let usage = serde_json::json!({ "input_tokens": 1, "output_tokens": 1 });
    spaced(vec![
        event(
            "message_start",
            serde_json::json!({ "type": "message_start", "message": {
                "id": "msg_1", "type": "message", "role": "assistant", "model": "stand-in", "content": [],
                "stop_reason": null, "stop_sequence": null, "usage": usage,
            }}),
        ),
        event(
            "content_block_start",
            serde_json::json!({
                "type": "content_block_start", "index": 0, "content_block": { "type": "text", "text": "" },
            }),
        ),
        text("Hello"),
        text(" from the model"),
        event(
            "content_block_stop",
            serde_json::json!({ "type": "content_block_stop", "index": 0 }),
        ),
        event(
            "message_delta",
            serde_json::json!({
                "type": "message_delta", "delta": { "stop_reason": "end_turn", "stop_sequence": null },
                "usage": { "output_tokens": 4 },
            }),
        ),
        event("message_stop", serde_json::json!({ "type": "message_stop" })),
    ])
}

/// Pieces that arrive one by one.
fn spaced(pieces: Vec<String>) -> Response {
    let pieces = stream::unfold(pieces.into_iter(), |mut pieces| async move {
        let piece = pieces.next()?;
        tokio::time::sleep(Duration::from_millis(30)).await;
        Some((Ok::<_, Infallible>(piece), pieces))
    });
    events(Body::from_stream(pieces))
}

fn events(body: Body) -> Response {
    let mut response = Response::new(body);
    let kind = "text/event-stream".parse().expect("a content type");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
