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
    let service = tower::ServiceExt::<Request>::map_request(
        router,
        |request: Request<hyper::body::Incoming>| request.map(axum::body::Body::new),
    );
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service))
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        // A client that breaks off has nobody to be told.
        ended = connection.as_mut() => drop(ended),
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            drop(connection.await);
        }
    }
}
