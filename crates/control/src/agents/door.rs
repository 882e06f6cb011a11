//! The way to an agent's port: connections into its jail, kept open from one request to the next.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::http::Uri;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tower::Service;

use crate::exec::{AskError, Asker};

/// Where the sandbox agent listens in its jail.
pub(super) const PORT: u16 = 2468;

/// How long a connection may wait for the next request. Shorter than what the agent keeps.
const KEPT: Duration = Duration::from_secs(20);

/// Connections that may wait.
const IDLE: usize = 8;

/// Speaks HTTP with one agent.
pub(crate) type HttpClient = Client<Door, Body>;

/// Opens connections to the agent's port.
#[derive(Debug, Clone)]
pub(crate) struct Door(Asker);

pub(super) fn client(asker: Asker) -> HttpClient {
    let mut builder = Client::builder(TokioExecutor::new());
    builder.pool_idle_timeout(KEPT).pool_max_idle_per_host(IDLE).pool_timer(TokioTimer::new());
    builder.build(Door(asker))
}

impl Service<Uri> for Door {
    type Response = TokioIo<TcpStream>;
    type Error = AskError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, AskError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), AskError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let asker = self.0.clone();
        Box::pin(async move {
            let stream = asker.connect(PORT).await?;
            drop(stream.set_nodelay(true));
            Ok(TokioIo::new(stream))
        })
    }
}
