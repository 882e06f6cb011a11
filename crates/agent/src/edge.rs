//! What wraps every route, once: who may ask, problem documents, CORS, the log.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap,
    ORIGIN, UPGRADE, VARY,
};
use axum::http::{HeaderValue, Method, StatusCode, Uri, Version};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use httpkit::{ApiError, RequestId};

use crate::app::App;
use crate::config::{Config, Cors};
use crate::problem::{Code, Problem};

/// Puts the one layer on: several would each cost an allocation and a copy of the routes for every request.
pub(crate) fn wrap(routes: Router<App>, app: App) -> Router {
    routes
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn_with_state(app.clone(), serve))
        .with_state(app)
}

async fn not_found() -> Problem {
    Problem::new(Code::NoSuchRoute, "endpoint not found")
}

async fn method_not_allowed() -> Problem {
    Problem::new(Code::MethodNotAllowed, "this endpoint does not know that method")
}

/// Identified, admitted, answered, logged.
async fn serve(State(app): State<App>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let id = RequestId::of(&request);
    let route = Route::of(&request);
    let pages = Pages::of(&app.config, &request);
    let response = if pages.as_ref().is_some_and(|pages| pages.preflight) {
        StatusCode::OK.into_response()
    } else {
        match admit(&app.config, &request) {
            Ok(()) => next.run(request).await,
            Err(problem) => problem.into_response(),
        }
    };
    let mut response = tell(response, &route, &id, began);
    cors(&app.config.cors, pages, &mut response);
    id.put_on(&mut response);
    response
}

/// Whether a request is served at all.
fn admit(config: &Config, request: &Request) -> Result<(), Problem> {
    check_host(config, request)?;
    check_origin(config, request.headers())?;
    if request.uri().path().starts_with("/v1") { check_token(config, request) } else { Ok(()) }
}

/// A web page can make a browser call this server under a name of the page's own that leads here. So a name
/// must be one that nobody else can have lead here: an address, `localhost`, or one that was configured.
fn check_host(config: &Config, request: &Request) -> Result<(), Problem> {
    let mut given = request.headers().get_all(HOST).iter();
    let (first, more) = (given.next(), given.next().is_some());
    let authority = match (first.map(HeaderValue::to_str), request.uri().authority()) {
        (Some(Ok(host)), _) if !more => host,
        (None, Some(authority)) => authority.as_str(),
        // Of its version, no client needs to say where it goes.
        (None, None) if request.version() == Version::HTTP_10 => return Ok(()),
        _ => return Err(Problem::invalid("send one Host header")),
    };
    let name = host_of(authority);
    let is_address = name.parse::<std::net::IpAddr>().is_ok();
    let is_local = name == "localhost" || name.ends_with(".localhost");
    let configured =
        config.hosts.iter().any(|host| host == "*" || host.eq_ignore_ascii_case(&name));
    // On all addresses it was meant to be reached by names we cannot know.
    let open = config.address.ip().is_unspecified();
    if is_address || is_local || configured || open {
        return Ok(());
    }
    let message =
        format!("Host {name} is not one of this server's; start it with --allow-host {name}");
    Err(Problem::new(Code::PermissionDenied, message))
}

/// The name of `name:port`, in lower case and without brackets.
fn host_of(authority: &str) -> String {
    let port = |rest: &str| rest.is_empty() || rest.starts_with(':');
    let name = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, rest)) if port(rest) => address,
        _ => authority.rsplit_once(':').map_or(authority, |(name, _)| name),
    };
    name.trim_end_matches('.').to_ascii_lowercase()
}

/// Requests of web pages come with their origin: it must be this server's own, or an allowed one.
fn check_origin(config: &Config, headers: &HeaderMap) -> Result<(), Problem> {
    let Some(origin) = headers.get(ORIGIN) else { return Ok(()) };
    let own = headers.get(HOST).and_then(|host| host.to_str().ok()).is_some_and(|host| {
        let origin = origin.to_str().ok().and_then(|origin| origin.parse::<Uri>().ok());
        origin.is_some_and(|origin| {
            origin
                .authority()
                .is_some_and(|authority| authority.as_str().eq_ignore_ascii_case(host))
        })
    });
    if own || config.cors.allows(origin) {
        return Ok(());
    }
    let shown = origin.to_str().unwrap_or("that is not text").to_owned();
    let message =
        format!("Origin {shown} is not allowed; start the server with --cors-allow-origin {shown}");
    Err(Problem::new(Code::PermissionDenied, message))
}

fn check_token(config: &Config, request: &Request) -> Result<(), Problem> {
    let Some(token) = &config.token else { return Ok(()) };
    let given = request.headers().get(AUTHORIZATION).map(HeaderValue::as_bytes);
    let bearer = given.and_then(|value| value.strip_prefix(b"Bearer "));
    let admitted = match bearer {
        Some(offered) => token.is(offered),
        // A browser cannot set headers on a WebSocket.
        None => {
            is_upgrade(request) && in_query(request.uri()).is_some_and(|offered| token.is(&offered))
        }
    };
    if admitted {
        Ok(())
    } else {
        Err(Problem::new(Code::TokenInvalid, "missing or invalid bearer token"))
    }
}

fn is_upgrade(request: &Request) -> bool {
    let upgrade = request.headers().get(UPGRADE).and_then(|value| value.to_str().ok());
    upgrade.is_some_and(|protocol| protocol.eq_ignore_ascii_case("websocket"))
}

fn in_query(uri: &Uri) -> Option<Vec<u8>> {
    let pairs = uri.query()?.split('&').filter_map(|pair| pair.split_once('='));
    let mut tokens = pairs.filter(|(name, _)| *name == "access_token" || *name == "token");
    tokens.next().map(|(_, value)| percent_decoded(value))
}

fn percent_decoded(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let (mut decoded, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).and_then(|hex| std::str::from_utf8(hex).ok());
        match (bytes[at], hex.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (b'%', Some(byte)) => {
                decoded.push(byte);
                at += 3;
            }
            (byte, _) => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    decoded
}

/// What a browser asks for a page.
struct Pages {
    /// The page's origin, if it may call.
    origin: Option<HeaderValue>,
    /// It asks before it calls.
    preflight: bool,
    headers: Option<HeaderValue>,
}

impl Pages {
    fn of(config: &Config, request: &Request) -> Option<Self> {
        let headers = request.headers();
        let origin = headers.get(ORIGIN)?;
        let preflight = request.method() == Method::OPTIONS
            && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        Some(Self {
            origin: config.cors.allows(origin).then(|| origin.clone()),
            preflight,
            headers: headers.get(ACCESS_CONTROL_REQUEST_HEADERS).cloned(),
        })
    }
}

/// Lets pages of allowed origins read the answers, and answers their browsers' questions.
fn cors(config: &Cors, pages: Option<Pages>, response: &mut Response) {
    let headers = response.headers_mut();
    headers.insert(
        VARY,
        HeaderValue::from_static(
            "origin, access-control-request-method, access-control-request-headers",
        ),
    );
    let Some(Pages { origin: Some(origin), preflight, headers: asked }) = pages else { return };
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("etag, x-request-id"));
    if config.credentials {
        headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
    if preflight {
        let methods = listed(config.methods.iter().map(Method::as_str));
        let all = HeaderValue::from_static("GET, POST, PUT, DELETE, HEAD, OPTIONS");
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, methods.unwrap_or(all));
        let allowed = listed(config.headers.iter().map(axum::http::HeaderName::as_str));
        if let Some(allowed) = allowed.or(asked) {
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, allowed);
        }
    }
}

fn listed<'a>(names: impl Iterator<Item = &'a str>) -> Option<HeaderValue> {
    let names: Vec<&str> = names.collect();
    (!names.is_empty()).then(|| HeaderValue::from_str(&names.join(", ")).ok()).flatten()
}

/// What is logged of a request. Not its path, which may name anything, nor its query, which may hold a token.
struct Route {
    method: Method,
    path: Option<MatchedPath>,
}

impl Route {
    fn of(request: &Request) -> Self {
        let path = request.extensions().get::<MatchedPath>().cloned();
        Self { method: request.method().clone(), path }
    }
}

/// Logs an answer, and writes out the problem it carries, if it does.
fn tell(response: Response, route: &Route, id: &RequestId, began: Instant) -> Response {
    let Route { method, path } = route;
    let route = path.as_ref().map_or("unknown", MatchedPath::as_str);
    let (status, id) = (response.status().as_u16(), id.0.as_str());
    let duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    tracing::debug!(request.id = id, %method, route, status, duration_ms, "{method} {route} {status}");
    let extensions = response.extensions();
    let problem = match extensions.get::<Arc<Problem>>() {
        Some(problem) => Some(Arc::clone(problem)),
        None => {
            extensions.get::<Arc<ApiError>>().map(|error| Arc::new(Problem::from(error.as_ref())))
        }
    };
    let Some(problem) = problem else { return response };
    if problem.is_ours() {
        tracing::error!(request.id = id, %method, route, error = %problem.detail(), "request failed");
    }
    write(&problem, response)
}

fn write(problem: &Problem, response: Response) -> Response {
    let (mut parts, _) = response.into_parts();
    parts.headers.remove(CONTENT_LENGTH);
    parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    let body = serde_json::to_vec(&problem.body()).unwrap_or_default();
    Response::from_parts(parts, body.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read_without_port_and_brackets() {
        assert_eq!(host_of("LocalHost:2468"), "localhost");
        assert_eq!(host_of("[::1]:80"), "::1");
        assert_eq!(host_of("[::1]"), "::1");
        assert_ne!(host_of("[::1]evil.example"), "::1");
        assert_eq!(host_of("example.com."), "example.com");
    }

    #[test]
    fn a_token_in_a_query_is_decoded() {
        let uri: Uri = "/v1/x?since=3&access_token=a%2Bb%3d".parse().unwrap();
        assert_eq!(in_query(&uri).unwrap(), b"a+b=");
        assert_eq!(in_query(&"/v1/x?my_token=a".parse().unwrap()), None);
    }
}
