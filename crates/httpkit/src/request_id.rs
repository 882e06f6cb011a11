//! An id for every request, on the response and in the log.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;

const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// A client's own id is taken if it is no longer than this, and plain.
const LONGEST: usize = 64;

/// The id of the request being served.
#[derive(Debug, Clone)]
pub struct RequestId(pub String);

/// Takes the client's `x-request-id`, or makes one, and puts it on the response.
pub async fn with_request_id(mut request: Request, next: Next) -> Response {
    let id = RequestId::of(&request);
    request.extensions_mut().insert(id.clone());
    let mut response = next.run(request).await;
    id.put_on(&mut response);
    response
}

impl RequestId {
    /// The client's `x-request-id` if it is plain, or a fresh one.
    pub fn of(request: &Request) -> Self {
        let given = request.headers().get(HEADER).and_then(|value| value.to_str().ok());
        Self(given.filter(|id| is_plain(id)).map_or_else(fresh, str::to_owned))
    }

    /// Tells it to the client.
    pub fn put_on(&self, response: &mut Response) {
        if let Ok(value) = HeaderValue::from_str(&self.0) {
            response.headers_mut().insert(HEADER, value);
        }
    }
}

fn is_plain(id: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    !id.is_empty() && id.len() <= LONGEST && id.bytes().all(plain)
}

/// Different in each process, and one more with each request: what the kernel's random bytes would cost a request is
/// spent once.
fn fresh() -> String {
    static NEXT: LazyLock<AtomicU64> = LazyLock::new(|| {
        let mut bytes = [0_u8; 8];
        // An id that repeats is a nuisance in a log, no more: no reason to fail a request.
        let _ = getrandom::fill(&mut bytes);
        AtomicU64::new(u64::from_le_bytes(bytes))
    });
    format!("{:016x}", NEXT.fetch_add(1, Ordering::Relaxed))
}
