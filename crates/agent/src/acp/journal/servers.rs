//! Servers that are kept.

use rusqlite::params;

use super::{Journal, JournalError};

/// A server, as it is kept.
#[derive(Debug, Clone)]
pub(in crate::acp) struct ServerRow {
    pub(in crate::acp) key: i64,
    pub(in crate::acp) id: String,
    /// `None` for one that speaks the Python client's dialect.
    pub(in crate::acp) agent: Option<String>,
    pub(in crate::acp) created_ms: u64,
    pub(in crate::acp) initialize: Option<String>,
    /// The last event's number, and the last one's that was sent.
    pub(in crate::acp) last: (u64, u64),
}

impl Journal {
    /// Servers that have not been ended.
    pub(in crate::acp) async fn servers(&self) -> Result<Vec<ServerRow>, JournalError> {
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
    pub(in crate::acp) async fn add_server(
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
    pub(in crate::acp) async fn set_initialize(
        &self,
        key: i64,
        text: String,
    ) -> Result<(), JournalError> {
        self.with(move |connection| {
            let sql = "UPDATE servers SET initialize = ?2 WHERE key = ?1";
            connection.prepare_cached(sql)?.execute(params![key, text]).map(drop)
        })
        .await
    }

    pub(in crate::acp) async fn end_server(
        &self,
        key: i64,
        at_ms: u64,
    ) -> Result<(), JournalError> {
        self.with(move |connection| {
            let ended = "UPDATE servers SET ended_ms = ?2 WHERE key = ?1";
            connection.prepare_cached(ended)?.execute(params![key, at_ms])?;
            let destroyed =
                "UPDATE sessions SET destroyed_s = ?2 WHERE server = ?1 AND destroyed_s IS NULL";
            connection.prepare_cached(destroyed)?.execute(params![key, at_ms / 1000]).map(drop)
        })
        .await
    }
}
