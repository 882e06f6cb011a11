//! `agents`: sandbox agents that live in workspaces.

use ids::{SessionId, TenantId, WorkspaceId};
use jiff::Timestamp;
use serde_json::Value;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;
use sqlx::types::Json;

use crate::time::{micros, timestamp};
use crate::{Session, Store, StoreError, Token, Whose, sessions};

/// A sandbox agent.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentRow {
    pub workspace: WorkspaceId,
    pub tenant: TenantId,
    pub created_at: Timestamp,
    /// A keyed hash of the token that opens it.
    pub token_hash: Vec<u8>,
    pub session: Option<SessionId>,
    /// Whether the session was made for it, and goes with it.
    pub owns_session: bool,
    /// How it is started.
    pub settings: Value,
    /// How it last ended by itself.
    pub ended: Option<Value>,
}

impl Store {
    /// Keeps an agent, with the session that was made for it, if one was; tells whether the workspace had none.
    pub async fn insert_agent(
        &self,
        agent: &AgentRow,
        minted: Option<(&Session, &[Token])>,
    ) -> Result<bool, StoreError> {
        let mut transaction = self.writer.begin().await?;
        if let Some((session, tokens)) = minted {
            sessions::insert(&mut transaction, session, tokens).await?;
        }
        let done = sqlx::query(
            "INSERT INTO agents (workspace, tenant, created_at, token_hash, session, owns_session, settings)
             VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (workspace) DO NOTHING",
        )
        .bind(agent.workspace.as_str())
        .bind(agent.tenant.as_str())
        .bind(micros(agent.created_at))
        .bind(&agent.token_hash)
        .bind(agent.session.as_ref().map(SessionId::as_str))
        .bind(i64::from(agent.owns_session))
        .bind(Json(&agent.settings))
        .execute(&mut *transaction)
        .await?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        transaction.commit().await?;
        Ok(true)
    }

    /// Whether a session was made for an agent, and goes with it.
    pub async fn is_of_agent(&self, session: &SessionId) -> Result<bool, StoreError> {
        let row = sqlx::query("SELECT 1 FROM agents WHERE session = $1 AND owns_session = 1")
            .bind(session.as_str())
            .fetch_optional(&self.reader)
            .await?;
        Ok(row.is_some())
    }

    /// The agent of a workspace, if it is in sight.
    pub async fn agent(
        &self,
        whose: Whose<'_>,
        workspace: &WorkspaceId,
    ) -> Result<Option<AgentRow>, StoreError> {
        let row = sqlx::query(
            "SELECT * FROM agents WHERE ($1 IS NULL OR tenant = $1) AND workspace = $2",
        )
        .bind(whose.parameter())
        .bind(workspace.as_str())
        .fetch_optional(&self.reader)
        .await?;
        row.as_ref().map(read).transpose()
    }

    /// The agent that a token opens.
    pub async fn agent_of_token(&self, hash: &[u8]) -> Result<Option<AgentRow>, StoreError> {
        let row = sqlx::query("SELECT * FROM agents WHERE token_hash = $1")
            .bind(hash)
            .fetch_optional(&self.reader)
            .await?;
        row.as_ref().map(read).transpose()
    }

    /// Notes how an agent ended by itself, or that it runs again.
    pub async fn note_agent_end(
        &self,
        workspace: &WorkspaceId,
        ended: Option<&Value>,
    ) -> Result<(), StoreError> {
        sqlx::query("UPDATE agents SET ended = $2 WHERE workspace = $1")
            .bind(workspace.as_str())
            .bind(ended.map(Json))
            .execute(&self.writer)
            .await?;
        Ok(())
    }

    /// Forgets an agent, and the session that was made for it; tells whether it was there.
    pub async fn delete_agent(&self, workspace: &WorkspaceId) -> Result<bool, StoreError> {
        let mut transaction = self.writer.begin().await?;
        sqlx::query(
            "DELETE FROM sessions WHERE id IN
                 (SELECT session FROM agents WHERE workspace = $1 AND owns_session = 1)",
        )
        .bind(workspace.as_str())
        .execute(&mut *transaction)
        .await?;
        let done = sqlx::query("DELETE FROM agents WHERE workspace = $1")
            .bind(workspace.as_str())
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(done.rows_affected() > 0)
    }
}

fn read(row: &SqliteRow) -> Result<AgentRow, StoreError> {
    const CORRUPT: StoreError = StoreError::Corrupt { what: "agent" };
    let session: Option<&str> = row.try_get("session")?;
    let settings: Json<Value> = row.try_get("settings")?;
    let ended: Option<Json<Value>> = row.try_get("ended")?;
    Ok(AgentRow {
        workspace: row.try_get::<&str, _>("workspace")?.parse().map_err(|_| CORRUPT)?,
        tenant: row.try_get::<&str, _>("tenant")?.parse().map_err(|_| CORRUPT)?,
        created_at: timestamp(row.try_get("created_at")?),
        token_hash: row.try_get("token_hash")?,
        session: session.map(str::parse).transpose().map_err(|_| CORRUPT)?,
        owns_session: row.try_get::<i64, _>("owns_session")? != 0,
        settings: settings.0,
        ended: ended.map(|ended| ended.0),
    })
}
