//! The inspector: a page of this server that speaks to its API, and to nothing else.

use axum::extract::Path;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderMap, IF_NONE_MATCH,
    REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Redirect, Response};
use rust_embed::RustEmbed;

/// The page as `cargo xtask web` builds it. A program built before that tells so in its place.
#[derive(RustEmbed)]
#[folder = "../../web/inspector/dist"]
#[allow_missing = true]
struct Assets;

/// What the page may do. Links with a token in them must not be told to anybody.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
connect-src 'self' ws: wss:; img-src 'self' data:; font-src 'self'; base-uri 'none'; \
form-action 'none'; frame-ancestors 'none'";

const NOT_BUILT: &str = "<!doctype html><title>Sandbox Agent</title><p>This program was built \
without its inspector: run <code>cargo xtask web</code> and build again. The API is all there: \
<a href=\"/openapi.json\">its document</a>.";

/// `GET /ui`
pub(crate) async fn redirect(request: axum::extract::Request) -> Redirect {
    let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
    Redirect::permanent(&format!("/ui/{query}"))
}

/// `GET /ui/`
pub(crate) async fn index(headers: HeaderMap) -> Response {
    asset("index.html", &headers).unwrap_or_else(|| {
        let mut response = (StatusCode::OK, NOT_BUILT).into_response();
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
        response
    })
}

/// `GET /ui/{path}`: a file, or the page for a path of its own.
pub(crate) async fn file(Path(path): Path<String>, headers: HeaderMap) -> Response {
    match asset(&path, &headers) {
        Some(response) => response,
        None if path.rsplit('/').next().is_some_and(|name| name.contains('.')) => {
            StatusCode::NOT_FOUND.into_response()
        }
        None => index(headers).await,
    }
}

fn asset(path: &str, asked: &HeaderMap) -> Option<Response> {
    let file = Assets::get(path)?;
    let etag: String = file
        .metadata
        .sha256_hash()
        .iter()
        .take(16)
        .fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
    let etag = HeaderValue::from_str(&format!("\"{etag}\"")).ok()?;
    let known = asked.get(IF_NONE_MATCH).is_some_and(|known| known == etag);
    let mut response = if known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        file.data.into_owned().into_response()
    };
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind(path)));
    headers.insert(ETAG, etag);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Some(response)
}

fn kind(path: &str) -> &'static str {
    match path.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("woff2") => "font/woff2",
        Some("json") => "application/json",
        _ => "application/octet-stream",
    }
}
