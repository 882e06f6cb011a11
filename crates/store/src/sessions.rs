//! `sessions` and `tokens`: phantom tokens that live and die together.

use ids::{ServiceId, SessionId, TenantId};
use jiff::Timestamp;
use secret::{Sealed, TokenHash};
use sqlx::sqlite::SqliteRow;
use sqlx::types::Json;
use sqlx::{Row as _, SqliteConnection};

use crate::time::{micros, timestamp};
use crate::{Store, StoreError, Whose};

/// A session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    pub id: SessionId,
    pub tenant: TenantId,
    pub created_at: Timestamp,
    pub expires_at: Option<Timestamp>,
    pub services: Vec<ServiceId>,
    /// The environment a jail gets, as JSON; it holds the tokens.
    pub sealed_env: Sealed,
}

/// One phantom token, as far as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    pub hash: TokenHash,
    pub session: SessionId,
    /// The session's.
    pub tenant: TenantId,
    /// Whose key is used.
    pub key_tenant: TenantId,
    pub service: ServiceId,
    /// `None` is no restriction.
    pub scopes: Option<Vec<String>>,
    /// The session's.
    pub expires_at: Option<Timestamp>,
}

impl Store {
    /// Keeps a session with its tokens, all or nothing.
    pub async fn insert_session(
        &self,
        session: &Session,
        tokens: &[Token],
    ) -> Result<(), StoreError> {
        let mut transaction = self.writer.begin().await?;
        insert(&mut transaction, session, tokens).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// All sessions in sight, newest first.
    pub async fn sessions(&self, whose: Whose<'_>) -> Result<Vec<Session>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM sessions WHERE ($1 IS NULL OR tenant = $1)
             ORDER BY created_at DESC, id DESC",
        )
        .bind(whose.parameter())
        .fetch_all(&self.reader)
        .await?;
        rows.iter().map(read_session).collect()
    }

    /// One session, if it is in sight.
    pub async fn session(
        &self,
        whose: Whose<'_>,
        id: &SessionId,
    ) -> Result<Option<Session>, StoreError> {
        let row =
            sqlx::query("SELECT * FROM sessions WHERE ($1 IS NULL OR tenant = $1) AND id = $2")
                .bind(whose.parameter())
                .bind(id.as_str())
                .fetch_optional(&self.reader)
                .await?;
        row.as_ref().map(read_session).transpose()
    }

    /// Removes a session and its tokens; tells whether it was there and in sight.
    pub async fn delete_session(
        &self,
        whose: Whose<'_>,
        id: &SessionId,
    ) -> Result<bool, StoreError> {
        let done =
            sqlx::query("DELETE FROM sessions WHERE ($1 IS NULL OR tenant = $1) AND id = $2")
                .bind(whose.parameter())
                .bind(id.as_str())
                .execute(&self.writer)
                .await?;
        Ok(done.rows_affected() > 0)
    }

    /// Removes sessions that expired before a moment; gives their ids.
    pub async fn delete_sessions_expired_before(
        &self,
        moment: Timestamp,
    ) -> Result<Vec<SessionId>, StoreError> {
        let rows = sqlx::query("DELETE FROM sessions WHERE expires_at < $1 RETURNING id")
            .bind(micros(moment))
            .fetch_all(&self.writer)
            .await?;
        rows.iter().map(|row| session_id(row, "id")).collect()
    }

    /// Every token there is: what the proxy knows at start.
    pub async fn tokens_of_everyone(&self) -> Result<Vec<Token>, StoreError> {
        let rows = sqlx::query(
            "SELECT hash, session, tenant, key_tenant, service, scopes, expires_at
             FROM tokens JOIN sessions ON sessions.id = tokens.session",
        )
        .fetch_all(&self.reader)
        .await?;
        rows.iter().map(read_token).collect()
    }

    /// How many sessions there are.
    pub async fn count_sessions(&self) -> Result<u64, StoreError> {
        let count: i64 =
            sqlx::query_scalar("SELECT count(*) FROM sessions").fetch_one(&self.reader).await?;
        Ok(crate::unsigned(count))
    }
}

/// Adds a session with its tokens, as a part of more.
pub(crate) async fn insert(
    transaction: &mut SqliteConnection,
    session: &Session,
    tokens: &[Token],
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO sessions (id, tenant, created_at, expires_at, services, sealed_env)
         VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(session.id.as_str())
    .bind(session.tenant.as_str())
    .bind(micros(session.created_at))
    .bind(session.expires_at.map(micros))
    .bind(Json(&session.services))
    .bind(session.sealed_env.as_bytes())
    .execute(&mut *transaction)
    .await?;
    for token in tokens {
        sqlx::query(
            "INSERT INTO tokens (hash, session, key_tenant, service, scopes)
             VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(token.hash.as_bytes())
        .bind(token.session.as_str())
        .bind(token.key_tenant.as_str())
        .bind(token.service.as_str())
        .bind(token.scopes.as_ref().map(Json))
        .execute(&mut *transaction)
        .await?;
    }
    Ok(())
}

fn read_session(row: &SqliteRow) -> Result<Session, StoreError> {
    let corrupt = |_| StoreError::Corrupt { what: "session" };
    let services: Json<Vec<ServiceId>> = row.try_get("services")?;
    Ok(Session {
        id: session_id(row, "id")?,
        tenant: row.try_get::<&str, _>("tenant")?.parse().map_err(corrupt)?,
        created_at: timestamp(row.try_get("created_at")?),
        expires_at: row.try_get::<Option<i64>, _>("expires_at")?.map(timestamp),
        services: services.0,
        sealed_env: Sealed::from_bytes(row.try_get("sealed_env")?),
    })
}

fn read_token(row: &SqliteRow) -> Result<Token, StoreError> {
    let corrupt = |_| StoreError::Corrupt { what: "token" };
    let scopes: Option<Json<Vec<String>>> = row.try_get("scopes")?;
    Ok(Token {
        hash: TokenHash::from_slice(row.try_get("hash")?)
            .ok_or(StoreError::Corrupt { what: "token" })?,
        session: session_id(row, "session")?,
        tenant: row.try_get::<&str, _>("tenant")?.parse().map_err(corrupt)?,
        key_tenant: row.try_get::<&str, _>("key_tenant")?.parse().map_err(corrupt)?,
        service: row.try_get::<&str, _>("service")?.parse().map_err(corrupt)?,
        scopes: scopes.map(|scopes| scopes.0),
        expires_at: row.try_get::<Option<i64>, _>("expires_at")?.map(timestamp),
    })
}

fn session_id(row: &SqliteRow, column: &str) -> Result<SessionId, StoreError> {
    let text: &str = row.try_get(column)?;
    text.parse().map_err(|_| StoreError::Corrupt { what: "session id" })
}
