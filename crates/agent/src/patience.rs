//! Answers that take long: white space keeps client and gateways waiting until the JSON is there.

use std::convert::Infallible;
use std::pin::Pin;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use serde::Serialize;
use tokio::time::timeout;

use crate::problem::Problem;

/// How long an answer may take before its head is sent: clients give up after 30 s of nothing.
const HEAD: Duration = Duration::from_secs(10);

/// How often a sign of life is sent from then on.
const SIGN: Duration = Duration::from_secs(5);

type Work<T> = Pin<Box<dyn Future<Output = Result<T, Problem>> + Send>>;

/// Answers with what the work gives. When it takes longer than a client waits, the status is 200 whatever comes:
/// a problem that shows up later is the body.
pub(crate) async fn answer<T: Serialize + Send + 'static>(
    work: impl Future<Output = Result<T, Problem>> + Send + 'static,
) -> Result<Response, Problem> {
    answer_or(work, Problem::body).await
}

/// The same, with a first sign of life after another time.
pub(crate) async fn answer_after<T: Serialize + Send + 'static>(
    patience: Duration,
    work: impl Future<Output = Result<T, Problem>> + Send + 'static,
) -> Result<Response, Problem> {
    respond(patience, work, Problem::body).await
}

/// The same, where a problem that shows up later is told in other words.
pub(crate) async fn answer_or<T: Serialize + Send + 'static, L: Serialize + 'static>(
    work: impl Future<Output = Result<T, Problem>> + Send + 'static,
    late: impl Fn(&Problem) -> L + Send + 'static,
) -> Result<Response, Problem> {
    respond(HEAD, work, late).await
}

async fn respond<T: Serialize + Send + 'static, L: Serialize + 'static>(
    patience: Duration,
    work: impl Future<Output = Result<T, Problem>> + Send + 'static,
    late: impl Fn(&Problem) -> L + Send + 'static,
) -> Result<Response, Problem> {
    let mut work: Work<T> = Box::pin(work);
    match timeout(patience, work.as_mut()).await {
        Ok(Ok(value)) => Ok(axum::Json(value).into_response()),
        Ok(Err(problem)) => Err(problem),
        Err(_) => {
            let body = futures_util::stream::unfold(Some((work, late)), |work| async {
                let (mut work, late) = work?;
                match timeout(SIGN, work.as_mut()).await {
                    Err(_) => {
                        Some((Ok::<_, Infallible>(Bytes::from_static(b" ")), Some((work, late))))
                    }
                    Ok(Ok(value)) => Some((Ok(json(&value)), None)),
                    Ok(Err(problem)) => Some((Ok(json(&late(&problem))), None)),
                }
            });
            // The client sees the first byte at once.
            let begin = futures_util::stream::once(async { Ok(Bytes::from_static(b" ")) });
            let body = futures_util::StreamExt::chain(begin, body);
            Ok(([(CONTENT_TYPE, "application/json")], Body::from_stream(body)).into_response())
        }
    }
}

fn json(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).unwrap_or_else(|_| b"null".to_vec()).into()
}
