//! Sessions that are kept, and what is set for each.

use rusqlite::{OptionalExtension as _, params};

use super::{Journal, JournalError};

/// A session, as it is kept.
#[derive(Debug, Clone)]
pub(in crate::acp) struct SessionRow {
    pub(in crate::acp) id: String,
    pub(in crate::acp) server: i64,
    pub(in crate::acp) agent: String,
    pub(in crate::acp) connection: String,
    pub(in crate::acp) created_s: u64,
    pub(in crate::acp) destroyed_s: Option<u64>,
    pub(in crate::acp) init: Option<String>,
    pub(in crate::acp) config_options: Option<String>,
    pub(in crate::acp) modes: Option<String>,
}

const COLUMNS: &str =
    "id, server, agent, connection, created_s, destroyed_s, init, config_options, modes";

impl Journal {
    /// Keeps a session, or what has become of it.
    pub(in crate::acp) async fn put_session(
        &self,
        session: SessionRow,
    ) -> Result<(), JournalError> {
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
    pub(in crate::acp) async fn session(
        &self,
        id: String,
    ) -> Result<Option<SessionRow>, JournalError> {
        self.with(move |connection| {
            let sql = format!("SELECT {COLUMNS} FROM sessions WHERE id = ?1 OR alias = ?1 LIMIT 1");
            connection.prepare_cached(&sql)?.query_row([id], session_row).optional()
        })
        .await
    }

    /// What can be set of an agent, as the newest session told it that did.
    pub(in crate::acp) async fn newest_options(
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
    pub(in crate::acp) async fn own_settings(
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
    pub(in crate::acp) async fn set_own_settings(
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
    pub(in crate::acp) async fn name_the_newest(
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
    pub(in crate::acp) async fn sessions(
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
}

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
