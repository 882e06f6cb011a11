//! The door to threads that may block: disks, directories, archives. Async workers never do.

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
