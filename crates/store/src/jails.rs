//! `jails`: the ledger of everything that ran.

use std::fmt;
use std::str::FromStr;

use ids::{SessionId, TenantId};
use jiff::Timestamp;
use serde_json::Value;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;
use sqlx::types::Json;

use crate::time::{micros, timestamp};
use crate::{Listed, Page, Store, StoreError, Whose, containing, signed, unsigned};

/// An enumeration that is stored and shown as a lower-case word.
macro_rules! word {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($variant),+ }

        impl $name {
            /// The word.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl FromStr for $name {
            type Err = ();

            fn from_str(word: &str) -> Result<Self, ()> {
                match word { $($word => Ok(Self::$variant),)+ _ => Err(()) }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(self.as_str())
            }
        }
    };
}

word!(
    /// What a jail was made for.
    JailKind { Run = "run", Exec = "exec", Fork = "fork", Stream = "stream", Workspace = "workspace" }
);
word!(
    /// How far a jail has come.
    JailStatus { Running = "running", Completed = "completed", Error = "error" }
);

/// A jail that is about to start.
#[derive(Debug, Clone, PartialEq)]
pub struct NewJail {
    pub tenant: TenantId,
    pub kind: JailKind,
    pub started_at: Timestamp,
    pub session: Option<SessionId>,
    pub label: String,
    pub parent: Option<i64>,
    /// The limits and network it was given, as shown to the caller.
    pub config: Value,
}

/// What a jail used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JailStatistics {
    pub memory_peak_bytes: u64,
    pub memory_current_bytes: u64,
    pub cpu_usage_usec: u64,
    pub cpu_user_usec: u64,
    pub cpu_system_usec: u64,
    pub io_read_bytes: u64,
    pub io_write_bytes: u64,
    pub pids_current: u64,
}

/// How a jail ended.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct JailEnd {
    pub exit_code: Option<i32>,
    pub duration_ms: Option<u64>,
    pub timed_out: Option<bool>,
    pub oom_killed: Option<bool>,
    pub statistics: Option<JailStatistics>,
    pub stdout: Option<String>,
    pub stderr: Option<String>,
    /// Present if the jail did not complete.
    pub error: Option<String>,
    /// Protections that were in force.
    pub enforced: Vec<String>,
    /// What it sent, received and was refused, as shown to the caller; of jails with an allowlist.
    pub network: Option<Value>,
}

/// A row of the ledger.
#[derive(Debug, Clone, PartialEq)]
pub struct JailRow {
    pub id: i64,
    pub new: NewJail,
    pub ended_at: Option<Timestamp>,
    pub status: JailStatus,
    pub end: JailEnd,
}

/// Which rows are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JailFilter {
    pub status: Option<JailStatus>,
    pub kind: Option<JailKind>,
    /// Found anywhere in label, session or error, in any case.
    pub text: Option<String>,
}

impl Store {
    /// Opens a row; gives its id.
    pub async fn insert_jail(&self, jail: &NewJail) -> Result<i64, StoreError> {
        let id = sqlx::query_scalar(
            "INSERT INTO jails (tenant, kind, started_at, status, session, label, parent, config)
             VALUES ($1, $2, $3, 'running', $4, $5, $6, $7) RETURNING id",
        )
        .bind(jail.tenant.as_str())
        .bind(jail.kind.as_str())
        .bind(micros(jail.started_at))
        .bind(jail.session.as_ref().map(SessionId::as_str))
        .bind(&jail.label)
        .bind(jail.parent)
        .bind(Json(&jail.config))
        .fetch_one(&self.writer)
        .await?;
        Ok(id)
    }

    /// Closes a row: completed, or in error if the end says so.
    pub async fn end_jail(
        &self,
        id: i64,
        ended_at: Timestamp,
        end: &JailEnd,
    ) -> Result<(), StoreError> {
        let status = if end.error.is_some() { JailStatus::Error } else { JailStatus::Completed };
        let count = |of: fn(&JailStatistics) -> u64| end.statistics.as_ref().map(of).map(signed);
        sqlx::query(
            "UPDATE jails SET status = $2, ended_at = $3, exit_code = $4, duration_ms = $5,
                 timed_out = $6, oom_killed = $7, memory_peak_bytes = $8, memory_current_bytes = $9,
                 cpu_usage_usec = $10, io_read_bytes = $11, io_write_bytes = $12,
                 pids_current = $13, stdout = $14, stderr = $15, error = $16, enforced = $17,
                 network = $18, cpu_user_usec = $19, cpu_system_usec = $20
             WHERE id = $1",
        )
        .bind(id)
        .bind(status.as_str())
        .bind(micros(ended_at))
        .bind(end.exit_code)
        .bind(end.duration_ms.map(signed))
        .bind(end.timed_out.map(i64::from))
        .bind(end.oom_killed.map(i64::from))
        .bind(count(|s| s.memory_peak_bytes))
        .bind(count(|s| s.memory_current_bytes))
        .bind(count(|s| s.cpu_usage_usec))
        .bind(count(|s| s.io_read_bytes))
        .bind(count(|s| s.io_write_bytes))
        .bind(count(|s| s.pids_current))
        .bind(&end.stdout)
        .bind(&end.stderr)
        .bind(&end.error)
        .bind(Json(&end.enforced))
        .bind(end.network.as_ref().map(Json))
        .bind(count(|s| s.cpu_user_usec))
        .bind(count(|s| s.cpu_system_usec))
        .execute(&self.writer)
        .await?;
        Ok(())
    }

    /// Closes every row that a former server left open; gives how many.
    pub async fn close_abandoned_jails(
        &self,
        now: Timestamp,
        error: &str,
    ) -> Result<u64, StoreError> {
        let done = sqlx::query(
            "UPDATE jails SET status = 'error', ended_at = $1, error = $2 WHERE status = 'running'",
        )
        .bind(micros(now))
        .bind(error)
        .execute(&self.writer)
        .await?;
        Ok(done.rows_affected())
    }

    /// One row, if it is in sight.
    pub async fn jail(&self, whose: Whose<'_>, id: i64) -> Result<Option<JailRow>, StoreError> {
        let row = sqlx::query("SELECT * FROM jails WHERE ($1 IS NULL OR tenant = $1) AND id = $2")
            .bind(whose.parameter())
            .bind(id)
            .fetch_optional(&self.reader)
            .await?;
        row.as_ref().map(read).transpose()
    }

    /// One page of the rows in sight, newest first.
    pub async fn jails(
        &self,
        whose: Whose<'_>,
        filter: &JailFilter,
        page: Page,
    ) -> Result<Listed<JailRow>, StoreError> {
        let text = filter.text.as_deref().map(containing);
        let rows = sqlx::query(
            "SELECT * FROM jails
             WHERE ($1 IS NULL OR tenant = $1) AND ($2 IS NULL OR status = $2)
                 AND ($3 IS NULL OR kind = $3)
                 AND ($4 IS NULL OR lower(label) LIKE $4 ESCAPE '\\'
                     OR lower(coalesce(session, '')) LIKE $4 ESCAPE '\\'
                     OR lower(coalesce(error, '')) LIKE $4 ESCAPE '\\')
             ORDER BY id DESC LIMIT $5 OFFSET $6",
        )
        .bind(whose.parameter())
        .bind(filter.status.map(JailStatus::as_str))
        .bind(filter.kind.map(JailKind::as_str))
        .bind(&text)
        .bind(i64::from(page.limit))
        .bind(signed(page.offset))
        .fetch_all(&self.reader)
        .await?;
        let total: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM jails
             WHERE ($1 IS NULL OR tenant = $1) AND ($2 IS NULL OR status = $2)
                 AND ($3 IS NULL OR kind = $3)
                 AND ($4 IS NULL OR lower(label) LIKE $4 ESCAPE '\\'
                     OR lower(coalesce(session, '')) LIKE $4 ESCAPE '\\'
                     OR lower(coalesce(error, '')) LIKE $4 ESCAPE '\\')",
        )
        .bind(whose.parameter())
        .bind(filter.status.map(JailStatus::as_str))
        .bind(filter.kind.map(JailKind::as_str))
        .bind(&text)
        .fetch_one(&self.reader)
        .await?;
        let rows = rows.iter().map(read).collect::<Result<_, _>>()?;
        Ok(Listed { rows, total: unsigned(total) })
    }
}

fn read(row: &SqliteRow) -> Result<JailRow, StoreError> {
    const CORRUPT: StoreError = StoreError::Corrupt { what: "jail" };
    let config: Json<Value> = row.try_get("config")?;
    let enforced: Option<Json<Vec<String>>> = row.try_get("enforced")?;
    let network: Option<Json<Value>> = row.try_get("network")?;
    let session: Option<&str> = row.try_get("session")?;
    let flag = |name| row.try_get::<Option<i64>, _>(name).map(|flag| flag.map(|flag| flag != 0));
    Ok(JailRow {
        id: row.try_get("id")?,
        new: NewJail {
            tenant: row.try_get::<&str, _>("tenant")?.parse().map_err(|_| CORRUPT)?,
            kind: row.try_get::<&str, _>("kind")?.parse().map_err(|()| CORRUPT)?,
            started_at: timestamp(row.try_get("started_at")?),
            session: session.map(str::parse).transpose().map_err(|_| CORRUPT)?,
            label: row.try_get("label")?,
            parent: row.try_get("parent")?,
            config: config.0,
        },
        ended_at: row.try_get::<Option<i64>, _>("ended_at")?.map(timestamp),
        status: row.try_get::<&str, _>("status")?.parse().map_err(|()| CORRUPT)?,
        end: JailEnd {
            exit_code: row.try_get("exit_code")?,
            duration_ms: row.try_get::<Option<i64>, _>("duration_ms")?.map(unsigned),
            timed_out: flag("timed_out")?,
            oom_killed: flag("oom_killed")?,
            statistics: read_statistics(row)?,
            stdout: row.try_get("stdout")?,
            stderr: row.try_get("stderr")?,
            error: row.try_get("error")?,
            enforced: enforced.map(|enforced| enforced.0).unwrap_or_default(),
            network: network.map(|network| network.0),
        },
    })
}

fn read_statistics(row: &SqliteRow) -> Result<Option<JailStatistics>, StoreError> {
    let count = |name| row.try_get::<Option<i64>, _>(name).map(|n| unsigned(n.unwrap_or_default()));
    if row.try_get::<Option<i64>, _>("memory_peak_bytes")?.is_none() {
        return Ok(None);
    }
    Ok(Some(JailStatistics {
        memory_peak_bytes: count("memory_peak_bytes")?,
        memory_current_bytes: count("memory_current_bytes")?,
        cpu_usage_usec: count("cpu_usage_usec")?,
        cpu_user_usec: count("cpu_user_usec")?,
        cpu_system_usec: count("cpu_system_usec")?,
        io_read_bytes: count("io_read_bytes")?,
        io_write_bytes: count("io_write_bytes")?,
        pids_current: count("pids_current")?,
    }))
}
