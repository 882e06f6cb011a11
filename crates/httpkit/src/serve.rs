//! Serving a router until told to stop, and then draining, but not for ever.

use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::linger::{self, Lingering};

/// How long a client may take to send a request's head.
const HEAD: Duration = Duration::from_secs(30);

/// Serves until `stop`; then takes no new connection, lets each finish the request it is in, and
/// breaks those that are still open after `grace`.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    stop: CancellationToken,
    grace: Duration,
) {
    let (tasks, end) = (TaskTracker::new(), CancellationToken::new());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        match accepted {
            Ok((stream, _)) => {
                let served = connection(stream, router.clone(), stop.clone());
                let end = end.clone();
                tasks.spawn(async move { end.run_until_cancelled(served).await });
            }
            Err(error) => {
                tracing::warn!(%error, "could not accept a connection");
                // Out of descriptors, most likely: others must end first.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    drop(listener);
    tasks.close();
    if tokio::time::timeout(grace, tasks.wait()).await.is_err() {
        tracing::warn!(open = tasks.len(), "connections did not finish in time; breaking them");
        end.cancel();
        tasks.wait().await;
    }
}

async fn connection(stream: TcpStream, router: Router, stop: CancellationToken) {
    drop(stream.set_nodelay(true));
    let (rests, left) = linger::channel();
    let service = tower::ServiceExt::<Request>::map_request(
        router,
        move |request: Request<hyper::body::Incoming>| {
            let (parts, body) = request.into_parts();
            let body = Lingering::new(body, &parts.headers, &rests);
            Request::from_parts(parts, axum::body::Body::new(body))
        },
    );
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service))
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let served = async {
        tokio::select! {
            // A client that breaks off has nobody to be told.
            ended = connection.as_mut() => drop(ended),
            () = stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                drop(connection.await);
            }
        }
    };
    tokio::select! {
        () = served => {}
        never = linger::read_out(left) => match never {},
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::StatusCode;
    use axum::routing::{get, put};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    /// What a client hears that sends everything first and only then listens.
    #[tokio::test]
    async fn an_answer_that_comes_early_is_heard_and_the_connection_goes_on() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new()
            .route("/full", put(|| async { StatusCode::INSUFFICIENT_STORAGE }))
            .route("/well", get(|| async { "well" }));
        let stop = CancellationToken::new();
        let served = serve(listener, router, stop.clone(), Duration::from_secs(5));
        let asked = async {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let head = "PUT /full HTTP/1.1\r\nhost: x\r\ncontent-length: 16777216\r\n\r\n";
            stream.write_all(head.as_bytes()).await.unwrap();
            // Time enough for the answer to be there before most of it is sent.
            let part = vec![b'x'; 64 * 1024];
            for _ in 0..256 {
                stream.write_all(&part).await.unwrap();
                tokio::time::sleep(Duration::from_micros(100)).await;
            }
            let mut heard = [0; 4096];
            let length = stream.read(&mut heard).await.unwrap();
            assert!(heard[..length].starts_with(b"HTTP/1.1 507"), "{:?}", &heard[..length]);
            stream.write_all(b"GET /well HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
            let length = stream.read(&mut heard).await.unwrap();
            assert!(heard[..length].ends_with(b"well"), "{:?}", &heard[..length]);
            stop.cancel();
        };
        tokio::join!(served, asked);
    }
}
