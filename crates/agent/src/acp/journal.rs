//! What is kept of agent sessions: servers, their events, sessions. SQLite, owned by one thread.

mod events;
mod servers;
mod sessions;

use std::io;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::oneshot;

pub(super) use events::{EventRow, NewEvent};
pub(super) use servers::ServerRow;
pub(super) use sessions::SessionRow;

/// How long a server that ends may hold the database.
const LOCK: Duration = Duration::from_secs(8);

/// Requests that may wait for the thread.
const QUEUE: usize = 256;

const TABLES: &str = "
PRAGMA auto_vacuum = INCREMENTAL;
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
CREATE TABLE IF NOT EXISTS servers (
    key INTEGER PRIMARY KEY,
    id TEXT NOT NULL,
    agent TEXT,
    created_ms INTEGER NOT NULL,
    ended_ms INTEGER,
    initialize TEXT
) STRICT;
CREATE TABLE IF NOT EXISTS events (
    server INTEGER NOT NULL,
    number INTEGER NOT NULL,
    sent INTEGER,
    at_ms INTEGER NOT NULL,
    session TEXT,
    payload TEXT NOT NULL,
    PRIMARY KEY (server, number)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS events_sent ON events (server, sent) WHERE sent IS NOT NULL;
CREATE INDEX IF NOT EXISTS events_session ON events (session, number) WHERE session IS NOT NULL;
CREATE TABLE IF NOT EXISTS sessions (
    id TEXT PRIMARY KEY,
    server INTEGER NOT NULL,
    agent TEXT NOT NULL,
    alias TEXT UNIQUE,
    connection TEXT NOT NULL,
    created_s INTEGER NOT NULL,
    destroyed_s INTEGER,
    init TEXT,
    config_options TEXT,
    modes TEXT,
    mcp TEXT,
    skills TEXT
) STRICT;
PRAGMA user_version = 1;
";

/// Why something could not be kept or found.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JournalError {
    #[error("the session database could not be used")]
    Sqlite(#[from] rusqlite::Error),
    #[error(
        "sessions cannot be kept in {directory}: {source}; it must be a directory of this user, with room left"
    )]
    Open { directory: String, source: io::Error },
    #[error("another server uses the state directory {0}; give this one its own with --state-dir")]
    Taken(String),
    #[error("the session database is closed")]
    Closed,
}

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// The database. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Journal {
    jobs: mpsc::SyncSender<Job>,
    /// Bytes that were added since the size was looked at.
    added: Arc<AtomicU64>,
}

impl Journal {
    /// Opens or makes it in a directory that no other server uses.
    pub(crate) fn open(directory: &Path) -> Result<Self, JournalError> {
        use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
        let open =
            |source| JournalError::Open { directory: directory.display().to_string(), source };
        let directories = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
        directories.map_err(open)?;
        for name in ["lock", "sessions.db", "sessions.db-wal", "sessions.db-shm"] {
            put_aside_if_strange(&directory.join(name)).map_err(open)?;
        }
        let mut options = std::fs::File::options();
        options.create(true).append(true).mode(0o600);
        let lock = options.open(directory.join("lock")).map_err(open)?;
        let deadline = Instant::now() + LOCK;
        while lock.try_lock().is_err() {
            if Instant::now() > deadline {
                return Err(JournalError::Taken(directory.display().to_string()));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let path = directory.join("sessions.db");
        // Made for its owner alone before SQLite would make it for everyone; what belongs to it follows.
        options.open(&path).map_err(open)?;
        let mut connection = match tables(&path) {
            Err(error) if is_corrupt(&error) => {
                // Kept for whoever can read it; the server goes on without.
                let aside = path.with_extension(format!("corrupt-{}", crate::wire::now_ms()));
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "the session database is put aside as {}",
                    aside.display()
                );
                std::fs::rename(&path, aside).map_err(open)?;
                options.open(&path).map_err(open)?;
                tables(&path)?
            }
            opened => opened?,
        };
        let (jobs, waiting) = mpsc::sync_channel::<Job>(QUEUE);
        let thread = thread::Builder::new().name("journal".to_owned()).spawn(move || {
            // Held as long as the database is used.
            let _lock = lock;
            while let Ok(job) = waiting.recv() {
                job(&mut connection);
            }
        });
        thread.map_err(open)?;
        Ok(Self { jobs, added: Arc::default() })
    }

    async fn with<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, JournalError> {
        let (tell, told) = oneshot::channel();
        let mut job: Job = Box::new(move |connection| drop(tell.send(act(connection))));
        loop {
            match self.jobs.try_send(job) {
                Ok(()) => break,
                Err(mpsc::TrySendError::Disconnected(_)) => return Err(JournalError::Closed),
                Err(mpsc::TrySendError::Full(back)) => {
                    job = back;
                    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                }
            }
        }
        Ok(told.await.map_err(|_| JournalError::Closed)??)
    }
}

fn tables(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.execute_batch(TABLES)?;
    Ok(connection)
}

/// What is no file, a pipe or a link say, is not opened: that could take for ever, or fill another one.
fn put_aside_if_strange(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.is_file() => {
            let aside = path.with_extension(format!("strange-{}", crate::wire::now_ms()));
            tracing::error!("{} is no regular file, and put aside", path.display());
            std::fs::rename(path, aside)
        }
        _ => Ok(()),
    }
}

fn is_corrupt(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    matches!(error.sqlite_error_code(), Some(DatabaseCorrupt | NotADatabase))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_no_database_is_put_aside_and_what_is_no_directory_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::os::unix::fs::symlink("/dev/zero", at("sessions.db")).unwrap();
        std::os::unix::net::UnixListener::bind(at("lock")).unwrap();
        let journal = Journal::open(directory.path()).unwrap();
        journal.add_server("s".to_owned(), None, 1).await.unwrap();
        assert!(std::fs::symlink_metadata(at("sessions.db")).unwrap().is_file());
        std::fs::write(at("file"), "").unwrap();
        let error = Journal::open(&at("file")).unwrap_err().to_string();
        assert!(error.contains("/file: File exists"), "{error}");
    }
}
