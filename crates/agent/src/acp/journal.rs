//! What is kept of agent sessions: servers, their events, sessions. SQLite, owned by one thread.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension as _, params};
use tokio::sync::oneshot;

/// How long a server that ends may hold the database.
const LOCK: Duration = Duration::from_secs(8);

/// Requests that may wait for the thread.
const QUEUE: usize = 256;

/// Events that are kept of one server; the oldest go first, and a reader is told.
pub(super) const KEPT: u64 = 200_000;

/// How often that is looked at, in events.
const PRUNED_EVERY: u64 = 1000;

/// Bytes of the database; beyond them go the events of servers that have ended, then the oldest of the largest.
const LARGEST: u64 = 1024 * 1024 * 1024;

/// How often that is looked at, in bytes that were added.
const MEASURED_EVERY: u64 = 16 * 1024 * 1024;

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

/// A server, as it is kept.
#[derive(Debug, Clone)]
pub(super) struct ServerRow {
    pub(super) key: i64,
    pub(super) id: String,
    /// `None` for one that speaks the Python client's dialect.
    pub(super) agent: Option<String>,
    pub(super) created_ms: u64,
    pub(super) initialize: Option<String>,
    /// The last event's number, and the last one's that was sent.
    pub(super) last: (u64, u64),
}

/// An event to keep.
#[derive(Debug)]
pub(super) struct NewEvent {
    pub(super) number: u64,
    /// Its id on the stream. What a client sent has none.
    pub(super) sent: Option<u64>,
    pub(super) at_ms: u64,
    pub(super) session: Option<String>,
    pub(super) payload: String,
}

/// A session, as it is kept.
#[derive(Debug, Clone)]
pub(super) struct SessionRow {
    pub(super) id: String,
    pub(super) server: i64,
    pub(super) agent: String,
    pub(super) connection: String,
    pub(super) created_s: u64,
    pub(super) destroyed_s: Option<u64>,
    pub(super) init: Option<String>,
    pub(super) config_options: Option<String>,
    pub(super) modes: Option<String>,
}

/// An event, as it is kept.
#[derive(Debug)]
pub(super) struct EventRow {
    pub(super) server: i64,
    pub(super) number: u64,
    pub(super) sent: Option<u64>,
    pub(super) at_ms: u64,
    pub(super) payload: String,
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

    /// Servers that have not been ended.
    pub(super) async fn servers(&self) -> Result<Vec<ServerRow>, JournalError> {
        self.with(|connection| {
            let sql = "SELECT s.key, s.id, s.agent, s.created_ms, s.initialize, \
                (SELECT max(number) FROM events e WHERE e.server = s.key), \
                (SELECT max(sent) FROM events e WHERE e.server = s.key AND e.sent IS NOT NULL) \
                FROM servers s WHERE ended_ms IS NULL ORDER BY key";
            let mut statement = connection.prepare_cached(sql)?;
            let rows = statement.query_map([], |row| {
                Ok(ServerRow {
                    key: row.get(0)?,
                    id: row.get(1)?,
                    agent: row.get(2)?,
                    created_ms: row.get(3)?,
                    initialize: row.get(4)?,
                    last: (
                        row.get::<_, Option<u64>>(5)?.unwrap_or(0),
                        row.get::<_, Option<u64>>(6)?.unwrap_or(0),
                    ),
                })
            })?;
            rows.collect()
        })
        .await
    }

    /// Keeps a new server; gives its key.
    pub(super) async fn add_server(
        &self,
        id: String,
        agent: Option<String>,
        created_ms: u64,
    ) -> Result<i64, JournalError> {
        self.with(move |connection| {
            let sql = "INSERT INTO servers (id, agent, created_ms) VALUES (?1, ?2, ?3)";
            connection.prepare_cached(sql)?.execute(params![id, agent, created_ms])?;
            Ok(connection.last_insert_rowid())
        })
        .await
    }

    /// Keeps with what a client opened its connection: it is said again to an agent that is started again.
    pub(super) async fn set_initialize(&self, key: i64, text: String) -> Result<(), JournalError> {
        self.with(move |connection| {
            let sql = "UPDATE servers SET initialize = ?2 WHERE key = ?1";
            connection.prepare_cached(sql)?.execute(params![key, text]).map(drop)
        })
        .await
    }

    pub(super) async fn end_server(&self, key: i64, at_ms: u64) -> Result<(), JournalError> {
        self.with(move |connection| {
            let ended = "UPDATE servers SET ended_ms = ?2 WHERE key = ?1";
            connection.prepare_cached(ended)?.execute(params![key, at_ms])?;
            let destroyed =
                "UPDATE sessions SET destroyed_s = ?2 WHERE server = ?1 AND destroyed_s IS NULL";
            connection.prepare_cached(destroyed)?.execute(params![key, at_ms / 1000]).map(drop)
        })
        .await
    }

    /// Keeps events, all or none.
    pub(super) async fn append(&self, key: i64, events: Vec<NewEvent>) -> Result<(), JournalError> {
        let bytes = events.iter().map(|event| event.payload.len() as u64).sum();
        if self.added.fetch_add(bytes, Ordering::Relaxed) + bytes > MEASURED_EVERY {
            self.added.store(0, Ordering::Relaxed);
            self.with(|connection| trim(connection, LARGEST)).await?;
        }
        self.with(move |connection| {
            let transaction = connection.transaction()?;
            {
                let sql = "INSERT INTO events (server, number, sent, at_ms, session, payload) \
                    VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
                let mut insert = transaction.prepare_cached(sql)?;
                for event in &events {
                    insert.execute(params![
                        key,
                        event.number,
                        event.sent,
                        event.at_ms,
                        event.session,
                        event.payload
                    ])?;
                }
            }
            let (first, last) = (events.first(), events.last());
            if let (Some(first), Some(last)) = (first, last)
                && last.number > KEPT
                && first.number / PRUNED_EVERY != (last.number + 1) / PRUNED_EVERY
            {
                let sql = "DELETE FROM events WHERE server = ?1 AND number <= ?2";
                transaction.prepare_cached(sql)?.execute(params![key, last.number - KEPT])?;
            }
            transaction.commit()
        })
        .await
    }

    /// Events that were sent after one, the oldest first: their ids and texts. So many of them, of about
    /// so many bytes.
    pub(super) async fn sent_after(
        &self,
        key: i64,
        after: u64,
        (most, most_bytes): (usize, usize),
    ) -> Result<Vec<(u64, String)>, JournalError> {
        self.with(move |connection| {
            let sql = "SELECT sent, payload FROM events \
                WHERE server = ?1 AND sent > ?2 ORDER BY sent LIMIT ?3";
            let mut statement = connection.prepare_cached(sql)?;
            let mut rows = statement.query(params![key, after, most])?;
            let (mut page, mut bytes) = (Vec::new(), 0);
            while let Some(row) = rows.next()? {
                let (number, text): (u64, String) = (row.get(0)?, row.get(1)?);
                bytes += text.len();
                page.push((number, text));
                if bytes > most_bytes {
                    break;
                }
            }
            Ok(page)
        })
        .await
    }

    /// Keeps a session, or what has become of it.
    pub(super) async fn put_session(&self, session: SessionRow) -> Result<(), JournalError> {
        self.with(move |connection| {
            let sql = "INSERT INTO sessions \
                (id, server, agent, connection, created_s, destroyed_s, init, config_options, modes) \
                VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) \
                ON CONFLICT (id) DO UPDATE SET server = ?2, connection = ?4, destroyed_s = ?6, \
                config_options = coalesce(?8, config_options), modes = coalesce(?9, modes)";
            connection.prepare_cached(sql)?.execute(params![
                session.id,
                session.server,
                session.agent,
                session.connection,
                session.created_s,
                session.destroyed_s,
                session.init,
                session.config_options,
                session.modes
            ])?;
            Ok(())
        })
        .await
    }

    /// A session by its id, or by a name that a client gave it.
    pub(super) async fn session(&self, id: String) -> Result<Option<SessionRow>, JournalError> {
        self.with(move |connection| {
            let sql = format!("SELECT {COLUMNS} FROM sessions WHERE id = ?1 OR alias = ?1 LIMIT 1");
            connection.prepare_cached(&sql)?.query_row([id], session_row).optional()
        })
        .await
    }

    /// What can be set of an agent, as the newest session told it that did.
    pub(super) async fn newest_options(
        &self,
        agent: String,
    ) -> Result<Option<String>, JournalError> {
        self.with(move |connection| {
            let sql = "SELECT config_options FROM sessions \
                WHERE agent = ?1 AND config_options IS NOT NULL \
                ORDER BY created_s DESC, rowid DESC LIMIT 1";
            connection.prepare_cached(sql)?.query_row([agent], |row| row.get(0)).optional()
        })
        .await
    }

    /// What is configured for a session alone: servers for tools, and skills.
    pub(super) async fn own_settings(
        &self,
        id: String,
    ) -> Result<(Option<String>, Option<String>), JournalError> {
        self.with(move |connection| {
            let sql = "SELECT mcp, skills FROM sessions WHERE id = ?1";
            let found = connection
                .prepare_cached(sql)?
                .query_row([id], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
            Ok(found.unwrap_or_default())
        })
        .await
    }

    /// Keeps what is configured for a session alone. `None` leaves what is there.
    pub(super) async fn set_own_settings(
        &self,
        id: String,
        mcp: Option<String>,
        skills: Option<String>,
    ) -> Result<(), JournalError> {
        self.with(move |connection| {
            let sql = "UPDATE sessions SET mcp = coalesce(?2, mcp), skills = coalesce(?3, skills) WHERE id = ?1";
            connection.prepare_cached(sql)?.execute(params![id, mcp, skills]).map(drop)
        })
        .await
    }

    /// Gives the newest session that has none a name, and tells which it is: some clients name a session
    /// before they say so.
    pub(super) async fn name_the_newest(
        &self,
        alias: String,
    ) -> Result<Option<SessionRow>, JournalError> {
        self.with(move |connection| {
            let transaction = connection.transaction()?;
            let sql = format!(
                "SELECT {COLUMNS} FROM sessions WHERE alias IS NULL AND destroyed_s IS NULL \
                 AND server IN (SELECT key FROM servers WHERE agent IS NULL) \
                 ORDER BY created_s DESC, rowid DESC LIMIT 1"
            );
            let found = transaction.prepare_cached(&sql)?.query_row([], session_row).optional()?;
            if let Some(found) = &found {
                let sql = "UPDATE sessions SET alias = ?2 WHERE id = ?1";
                transaction.prepare_cached(sql)?.execute(params![found.id, alias])?;
            }
            transaction.commit()?;
            Ok(found)
        })
        .await
    }

    /// Sessions, newest first, and how many there are.
    pub(super) async fn sessions(
        &self,
        skip: u64,
        most: u64,
    ) -> Result<(Vec<SessionRow>, u64), JournalError> {
        self.with(move |connection| {
            let total = connection.query_row("SELECT count(*) FROM sessions", [], |row| row.get(0))?;
            let sql = format!(
                "SELECT {COLUMNS} FROM sessions ORDER BY created_s DESC, rowid DESC LIMIT ?1 OFFSET ?2"
            );
            let mut statement = connection.prepare_cached(&sql)?;
            let rows = statement.query_map(params![most, skip], session_row)?;
            Ok((rows.collect::<Result<_, _>>()?, total))
        })
        .await
    }

    /// Events of a session, oldest first, and how many there are.
    pub(super) async fn events(
        &self,
        session: String,
        skip: u64,
        most: u64,
    ) -> Result<(Vec<EventRow>, u64), JournalError> {
        self.with(move |connection| {
            let count = "SELECT count(*) FROM events WHERE session = ?1";
            let total =
                connection.prepare_cached(count)?.query_row([&session], |row| row.get(0))?;
            let sql = "SELECT server, number, sent, at_ms, payload FROM events WHERE session = ?1 \
                ORDER BY server, number LIMIT ?2 OFFSET ?3";
            let mut statement = connection.prepare_cached(sql)?;
            let rows = statement.query_map(params![session, most, skip], |row| {
                Ok(EventRow {
                    server: row.get(0)?,
                    number: row.get(1)?,
                    sent: row.get(2)?,
                    at_ms: row.get(3)?,
                    payload: row.get(4)?,
                })
            })?;
            Ok((rows.collect::<Result<_, _>>()?, total))
        })
        .await
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

/// Makes room until the database is no larger than so many bytes, as far as that can be had.
fn trim(connection: &mut Connection, largest: u64) -> rusqlite::Result<()> {
    for _ in 0..64 {
        if size(connection)? <= largest {
            break;
        }
        let ended = "SELECT key FROM servers WHERE ended_ms IS NOT NULL \
            AND EXISTS (SELECT 1 FROM events WHERE server = key) ORDER BY ended_ms LIMIT 1";
        let ended: Option<i64> = connection.query_row(ended, [], |row| row.get(0)).optional()?;
        if let Some(key) = ended {
            connection.execute("DELETE FROM events WHERE server = ?1", [key])?;
            continue;
        }
        let largest = "SELECT server, min(number), max(number) FROM events \
            GROUP BY server ORDER BY sum(length(payload)) DESC LIMIT 1";
        let found: Option<(i64, u64, u64)> = connection
            .query_row(largest, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .optional()?;
        let Some((key, first, last)) = found else { break };
        let sql = "DELETE FROM events WHERE server = ?1 AND number <= ?2";
        if connection.execute(sql, params![key, first + (last - first) / 4])? == 0 {
            break;
        }
    }
    connection.execute_batch("PRAGMA incremental_vacuum")
}

/// Bytes that are in use.
fn size(connection: &Connection) -> rusqlite::Result<u64> {
    let number = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, u64>(0));
    Ok((number("page_count")? - number("freelist_count")?) * number("page_size")?)
}

const COLUMNS: &str =
    "id, server, agent, connection, created_s, destroyed_s, init, config_options, modes";

fn session_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<SessionRow> {
    Ok(SessionRow {
        id: row.get(0)?,
        server: row.get(1)?,
        agent: row.get(2)?,
        connection: row.get(3)?,
        created_s: row.get(4)?,
        destroyed_s: row.get(5)?,
        init: row.get(6)?,
        config_options: row.get(7)?,
        modes: row.get(8)?,
    })
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

    #[tokio::test]
    async fn a_database_that_is_too_large_loses_what_has_ended_first_and_then_the_oldest() {
        let directory = tempfile::tempdir().unwrap();
        let journal = Journal::open(directory.path()).unwrap();
        let mut keys = Vec::new();
        for id in ["ended", "alive"] {
            let key = journal.add_server(id.to_owned(), None, 1).await.unwrap();
            let event = |number| NewEvent {
                number,
                sent: Some(number),
                at_ms: 1,
                session: None,
                payload: "x".repeat(10_000),
            };
            journal.append(key, (1..=100).map(event).collect()).await.unwrap();
            keys.push(key);
        }
        journal.end_server(keys[0], 2).await.unwrap();
        journal.with(|connection| trim(connection, 700_000)).await.unwrap();
        assert!(journal.sent_after(keys[0], 0, (1, 1)).await.unwrap().is_empty());
        let left = journal.sent_after(keys[1], 0, (1000, usize::MAX)).await.unwrap();
        assert!(left.len() < 100 && left.last().unwrap().0 == 100, "{}", left.len());
        let bytes = journal.with(|connection| size(connection)).await.unwrap();
        assert!(bytes <= 700_000, "{bytes}");
    }
}
