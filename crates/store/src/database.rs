//! Opening the database, and why a query can fail.

use std::path::Path;
use std::time::Duration;

use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

/// Readers that may run beside the one writer.
const READERS: u32 = 4;

/// How long a query waits for a connection, or for another process's lock.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why rows could not be had or kept. The operator's to mend, never the caller's.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("could not open the database at {path}")]
    Open { path: String, source: sqlx::Error },
    #[error("could not bring the database up to date")]
    Migrate(#[source] sqlx::migrate::MigrateError),
    #[error("a query failed")]
    Query(#[from] sqlx::Error),
    #[error("something that was referred to is not there any more")]
    Gone,
    #[error("a stored {what} could not be read")]
    Corrupt { what: &'static str },
}

/// The database. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    pub(crate) reader: SqlitePool,
    /// One connection: SQLite has one writer, and waiting for it here is fair, which its own lock
    /// is not.
    pub(crate) writer: SqlitePool,
}

impl Store {
    /// Opens or makes the database in a file that only this user can read, and brings its tables up
    /// to date.
    ///
    /// A commit survives the death of this process at any moment. The last ones may be lost when the
    /// machine loses power (`synchronous = NORMAL`): the ledger is written on every run, and waiting
    /// for the disk each time would double what a run costs.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        make_private(path).map_err(|error| StoreError::Open {
            path: path.display().to_string(),
            source: sqlx::Error::Io(error),
        })?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .foreign_keys(true)
            .busy_timeout(PATIENCE);
        let open = |error| StoreError::Open { path: path.display().to_string(), source: error };
        let writer = pool(1).connect_with(options.clone()).await.map_err(open)?;
        sqlx::migrate!("migrations/sqlite").run(&writer).await.map_err(StoreError::Migrate)?;
        let reader = pool(READERS).connect_with(options.read_only(true)).await.map_err(open)?;
        Ok(Self { reader, writer })
    }

    /// Copies the database as it is at this moment into a new file.
    pub async fn copy_to(&self, path: &Path) -> Result<(), StoreError> {
        make_private(path).map_err(|error| StoreError::Open {
            path: path.display().to_string(),
            source: sqlx::Error::Io(error),
        })?;
        sqlx::query("VACUUM INTO $1")
            .bind(path.display().to_string())
            .execute(&self.writer)
            .await?;
        Ok(())
    }

    /// Finishes what is under way and closes the file.
    pub async fn close(&self) {
        self.reader.close().await;
        self.writer.close().await;
    }
}

/// Makes the file for its owner alone, before SQLite would make it for everyone; its journal and
/// index take the same mode.
fn make_private(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = std::fs::File::options();
    options.create(true).append(true).mode(0o600).open(path).map(drop)
}

fn pool(connections: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(PATIENCE)
        // The file is local: asking whether a connection still works costs more than it tells.
        .test_before_acquire(false)
        .idle_timeout(None)
        .max_lifetime(None)
}
