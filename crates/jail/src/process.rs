//! A command beside the first.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use launch::message::{Exit, Order};
use rustix::process::Signal;
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::conversation::{Conversation, OrderError};
use crate::pipes::Pipes;

/// How a further command is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stdio {
    /// Pipes for output and error, and for input if `stdin` says so.
    Pipes { stdin: crate::Stdin },
    /// A terminal of the jail's own.
    Terminal(crate::TerminalSize),
}

/// The owner's ends.
#[derive(Debug)]
pub enum Streams {
    Pipes(Pipes),
    /// Reads what the command writes, and the other way round. Reading fails with `EIO` when nobody
    /// has the other end open any more: that is its end.
    Terminal(AsyncFd<OwnedFd>),
}

/// A further command in a live jail. It ends with the jail; dropping this value does not end it.
#[derive(Debug)]
pub struct Process {
    pub(crate) conversation: Arc<Conversation>,
    pub(crate) number: u32,
    pub(crate) ended: oneshot::Receiver<Exit>,
    pub(crate) exit: Option<Exit>,
    /// The errno of an `exec` that failed: the command never ran, and exits with 126 or 127.
    pub not_executed: Option<i32>,
    /// Take what you read or write.
    pub streams: Option<Streams>,
}

impl Process {
    /// Waits for the command's end.
    ///
    /// # Cancel safety
    ///
    /// May be dropped and called again.
    pub async fn wait(&mut self) -> Exit {
        if let Some(exit) = self.exit {
            return exit;
        }
        let killed = Exit::Signal(Signal::KILL.as_raw());
        let exit = (&mut self.ended).await.unwrap_or(killed);
        self.exit = Some(exit);
        exit
    }

    /// Waits for the command's end for at most `limit`; then kills it, everything in its session and
    /// everything descended from it. Gives also whether it had to.
    pub async fn wait_or_kill(&mut self, limit: Duration) -> (Exit, bool) {
        if let Ok(exit) = timeout(limit, self.wait()).await {
            return (exit, false);
        }
        // A jail that has gone has killed it for us.
        drop(self.kill().await);
        (self.wait().await, true)
    }

    /// Sends a signal to the command and its process group.
    pub async fn signal(&self, signal: i32) -> Result<(), OrderError> {
        self.conversation.tell(&Order::Signal { process: self.number, signal }).await
    }

    /// Kills the command, everything in its session and everything descended from it, as far as init
    /// can see: what has left the session *and* lost its parent (a daemon), or left the session and made
    /// itself undumpable, stays until the jail ends.
    pub async fn kill(&self) -> Result<(), OrderError> {
        self.conversation.tell(&Order::Kill { process: self.number }).await
    }
}
