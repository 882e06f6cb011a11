//! The doors between async workers and what blocks: threads for disks, directories and archives; readiness
//! for the rest.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::unix::AsyncFd;

/// Runs something that blocks on a thread for such things, and gives what it gave. It runs to its end
/// even if nobody waits for it any more.
pub(crate) async fn blocking<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(act).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is being torn down, and this task with it.
            Err(_) => std::future::pending().await,
        },
    }
}

/// Watches a descriptor of ours.
#[expect(
    deprecated,
    reason = "unsound only for types whose descriptor may change while watched; an OwnedFd's cannot"
)]
pub(crate) fn watched(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::try_new(descriptor).map_err(io::Error::from)
}
