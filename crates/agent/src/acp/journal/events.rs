//! What servers and their clients said, in order, and how much of it is kept.

use std::sync::atomic::Ordering;

use rusqlite::{Connection, OptionalExtension as _, params};

use super::{Journal, JournalError};

/// Events that are kept of one server; the oldest go first, and a reader is told.
const KEPT: u64 = 200_000;

/// How often that is looked at, in events.
const PRUNED_EVERY: u64 = 1000;

/// Bytes of the database; beyond them go the events of servers that have ended, then the oldest of the largest.
const LARGEST: u64 = 1024 * 1024 * 1024;

/// How often that is looked at, in bytes that were added.
const MEASURED_EVERY: u64 = 16 * 1024 * 1024;

/// An event to keep.
#[derive(Debug)]
pub(in crate::acp) struct NewEvent {
    pub(in crate::acp) number: u64,
    /// Its id on the stream. What a client sent has none.
    pub(in crate::acp) sent: Option<u64>,
    pub(in crate::acp) at_ms: u64,
    pub(in crate::acp) session: Option<String>,
    pub(in crate::acp) payload: String,
}

/// An event, as it is kept.
#[derive(Debug)]
pub(in crate::acp) struct EventRow {
    pub(in crate::acp) server: i64,
    pub(in crate::acp) number: u64,
    pub(in crate::acp) sent: Option<u64>,
    pub(in crate::acp) at_ms: u64,
    pub(in crate::acp) payload: String,
}

impl Journal {
    /// Keeps events, all or none.
    pub(in crate::acp) async fn append(
        &self,
        key: i64,
        events: Vec<NewEvent>,
    ) -> Result<(), JournalError> {
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
    pub(in crate::acp) async fn sent_after(
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

    /// Events of a session, oldest first, and how many there are.
    pub(in crate::acp) async fn events(
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

#[cfg(test)]
mod tests {
    use super::*;

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
