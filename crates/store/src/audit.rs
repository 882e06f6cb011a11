//! `audit`: every decision of the phantom proxy.
//!
//! Each row carries a hash over itself and the hash before it, so that a row that was changed or
//! taken out later shows. One task writes them ([`Store::append_audit`] is called by nobody else),
//! which is what makes the chain a chain.

use ids::{SessionId, TenantId};
use jiff::Timestamp;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use crate::time::{micros, timestamp};
use crate::{Listed, Store, StoreError, Whose, signed, unsigned};

/// A decision that is about to be written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewAuditRow {
    pub at: Timestamp,
    /// Absent for a request that named no known token.
    pub tenant: Option<TenantId>,
    pub session: Option<SessionId>,
    /// Empty for a request that named no known token.
    pub service: String,
    pub method: String,
    /// The upstream's path, without the query.
    pub path: String,
    pub status: u16,
    pub reject_reason: Option<&'static str>,
    pub upstream_ms: Option<u64>,
}

/// What a forwarded exchange carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transfer {
    pub request_bytes: u64,
    pub response_bytes: u64,
    pub ended_at: Timestamp,
}

/// A decision as it was written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRow {
    pub id: i64,
    pub at: Timestamp,
    pub tenant: Option<String>,
    pub session: String,
    pub service: String,
    pub method: String,
    pub path: String,
    pub status: u16,
    pub reject_reason: Option<String>,
    pub upstream_ms: Option<u64>,
    /// Known once the exchange has ended.
    pub transfer: Option<Transfer>,
}

/// Which rows are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditFilter {
    pub session: Option<String>,
    pub service: Option<String>,
    pub since: Option<Timestamp>,
    /// Only rows with a smaller id: the next page.
    pub before: Option<i64>,
}

impl Store {
    /// Appends rows to the chain, all or nothing; gives their ids in order.
    pub async fn append_audit(&self, rows: &[NewAuditRow]) -> Result<Vec<i64>, StoreError> {
        let mut transaction = self.writer.begin().await?;
        let last: Option<Vec<u8>> =
            sqlx::query_scalar("SELECT chain FROM audit ORDER BY id DESC LIMIT 1")
                .fetch_optional(&mut *transaction)
                .await?;
        let mut chain = last.unwrap_or_default();
        let mut ids = Vec::with_capacity(rows.len());
        for row in rows {
            chain = link(&chain, row);
            let id = sqlx::query_scalar(
                "INSERT INTO audit (at, tenant, session, service, method, path, status,
                     reject_reason, upstream_ms, chain)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) RETURNING id",
            )
            .bind(micros(row.at))
            .bind(row.tenant.as_ref().map(TenantId::as_str))
            .bind(session(row))
            .bind(&row.service)
            .bind(&row.method)
            .bind(&row.path)
            .bind(i64::from(row.status))
            .bind(row.reject_reason)
            .bind(row.upstream_ms.map(signed))
            .bind(&chain)
            .fetch_one(&mut *transaction)
            .await?;
            ids.push(id);
        }
        transaction.commit().await?;
        Ok(ids)
    }

    /// Notes what exchanges carried once they have ended.
    pub async fn end_transfers(&self, ended: &[(i64, Transfer)]) -> Result<(), StoreError> {
        let mut transaction = self.writer.begin().await?;
        for (audit, transfer) in ended {
            sqlx::query(
                "INSERT INTO audit_transfers (audit, request_bytes, response_bytes, ended_at)
                 VALUES ($1, $2, $3, $4) ON CONFLICT (audit) DO NOTHING",
            )
            .bind(audit)
            .bind(signed(transfer.request_bytes))
            .bind(signed(transfer.response_bytes))
            .bind(micros(transfer.ended_at))
            .execute(&mut *transaction)
            .await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    /// The newest rows in sight. `total` counts all that match, on any page.
    pub async fn audit(
        &self,
        whose: Whose<'_>,
        filter: &AuditFilter,
        limit: u32,
    ) -> Result<Listed<AuditRow>, StoreError> {
        let rows = sqlx::query(
            "SELECT audit.*, request_bytes, response_bytes, ended_at
             FROM audit LEFT JOIN audit_transfers ON audit_transfers.audit = audit.id
             WHERE ($1 IS NULL OR tenant = $1) AND ($2 IS NULL OR session = $2)
                 AND ($3 IS NULL OR service = $3) AND ($4 IS NULL OR at >= $4)
                 AND ($5 IS NULL OR id < $5)
             ORDER BY id DESC LIMIT $6",
        )
        .bind(whose.parameter())
        .bind(&filter.session)
        .bind(&filter.service)
        .bind(filter.since.map(micros))
        .bind(filter.before)
        .bind(i64::from(limit))
        .fetch_all(&self.reader)
        .await?;
        let total: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM audit
             WHERE ($1 IS NULL OR tenant = $1) AND ($2 IS NULL OR session = $2)
                 AND ($3 IS NULL OR service = $3) AND ($4 IS NULL OR at >= $4)",
        )
        .bind(whose.parameter())
        .bind(&filter.session)
        .bind(&filter.service)
        .bind(filter.since.map(micros))
        .fetch_one(&self.reader)
        .await?;
        let rows = rows.iter().map(read).collect::<Result<_, _>>()?;
        Ok(Listed { rows, total: unsigned(total) })
    }

    /// The first row whose hash does not follow from the row before it, if there is one.
    pub async fn first_broken_audit_link(&self) -> Result<Option<i64>, StoreError> {
        let mut chain = Vec::new();
        let mut after = 0_i64;
        loop {
            let rows = sqlx::query("SELECT * FROM audit WHERE id > $1 ORDER BY id LIMIT 1000")
                .bind(after)
                .fetch_all(&self.reader)
                .await?;
            if rows.is_empty() {
                return Ok(None);
            }
            for row in &rows {
                let id: i64 = row.try_get("id")?;
                chain = link_of(&chain, row)?;
                // Ids are given without a gap by one writer: a gap is a row taken out.
                if id != after + 1 || chain != row.try_get::<Vec<u8>, _>("chain")? {
                    return Ok(Some(id));
                }
                after = id;
            }
        }
    }
}

fn session(row: &NewAuditRow) -> &str {
    row.session.as_ref().map(SessionId::as_str).unwrap_or_default()
}

fn link(previous: &[u8], row: &NewAuditRow) -> Vec<u8> {
    hash(
        previous,
        &[
            &micros(row.at).to_string(),
            row.tenant.as_ref().map(TenantId::as_str).unwrap_or_default(),
            session(row),
            &row.service,
            &row.method,
            &row.path,
            &row.status.to_string(),
            row.reject_reason.unwrap_or_default(),
            &row.upstream_ms.map(|ms| signed(ms).to_string()).unwrap_or_default(),
        ],
    )
}

fn link_of(previous: &[u8], row: &SqliteRow) -> Result<Vec<u8>, StoreError> {
    let text = |name| row.try_get::<Option<String>, _>(name).map(Option::unwrap_or_default);
    let number = |name| {
        row.try_get::<Option<i64>, _>(name).map(|n| n.map(|n| n.to_string()).unwrap_or_default())
    };
    Ok(hash(
        previous,
        &[
            &number("at")?,
            &text("tenant")?,
            &text("session")?,
            &text("service")?,
            &text("method")?,
            &text("path")?,
            &number("status")?,
            &text("reject_reason")?,
            &number("upstream_ms")?,
        ],
    ))
}

/// Lengths go in too, so that no two rows have the same bytes to hash.
fn hash(previous: &[u8], fields: &[&str]) -> Vec<u8> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(previous);
    for field in fields {
        hasher.update(&(field.len() as u64).to_le_bytes());
        hasher.update(field.as_bytes());
    }
    hasher.finalize().as_bytes().to_vec()
}

fn read(row: &SqliteRow) -> Result<AuditRow, StoreError> {
    let transfer = match row.try_get::<Option<i64>, _>("ended_at")? {
        None => None,
        Some(ended_at) => Some(Transfer {
            request_bytes: unsigned(row.try_get("request_bytes")?),
            response_bytes: unsigned(row.try_get("response_bytes")?),
            ended_at: timestamp(ended_at),
        }),
    };
    Ok(AuditRow {
        id: row.try_get("id")?,
        at: timestamp(row.try_get("at")?),
        tenant: row.try_get("tenant")?,
        session: row.try_get("session")?,
        service: row.try_get("service")?,
        method: row.try_get("method")?,
        path: row.try_get("path")?,
        status: u16::try_from(row.try_get::<i64, _>("status")?).unwrap_or_default(),
        reject_reason: row.try_get("reject_reason")?,
        upstream_ms: row.try_get::<Option<i64>, _>("upstream_ms")?.map(unsigned),
        transfer,
    })
}
