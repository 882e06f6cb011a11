//! The rules of sessions.

use std::collections::BTreeMap;
use std::sync::Arc;

use ids::{ServiceId, SessionId, TenantId};
use jiff::{SignedDuration, Timestamp};
use phantom::{Provider, Proxy, Scope, ScopeError};
use secret::{OpenError, PhantomToken, Secret, Vault};
use store::{Session, Store, StoreError, Token, Whose};
use tokio::sync::MutexGuard;

use crate::caller::Role;
use crate::config::BaseUrl;
use crate::exec::SessionAccess;

const LONGEST_TTL_SECS: u64 = 30 * 24 * 3600;
const MOST_SCOPES: usize = 64;

/// How long an expired session is still listed before it is removed.
const KEPT_AFTER_EXPIRY: SignedDuration = SignedDuration::from_hours(24);

/// Why a session was not made, or not found.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionError {
    #[error("services must contain at least one entry")]
    NoServices,
    #[error("services: {0} is named twice")]
    Twice(ServiceId),
    #[error("no credential configured for service {service} (tenant {tenant})")]
    NoCredential { service: ServiceId, tenant: TenantId },
    #[error("scope for service {0} but it is not in services")]
    ScopeElsewhere(ServiceId),
    #[error("scopes.{0} is empty: leave it out for no restriction")]
    EmptyScope(ServiceId),
    #[error("scopes.{0} has more than {MOST_SCOPES} entries")]
    TooManyScopes(ServiceId),
    #[error("scopes.{service}[{index}]: {error}")]
    BadScope { service: ServiceId, index: usize, error: ScopeError },
    #[error("ttl_secs must be from 1 to {LONGEST_TTL_SECS} (30 days)")]
    Ttl,
    #[error("session {0}")]
    Missing(String),
    #[error("session expired")]
    Expired,
    #[error("quota of sessions: the tenant may have {0}")]
    Quota(u64),
    #[error("the store failed")]
    Store(#[from] StoreError),
    #[error("a session's environment does not open")]
    Open(#[from] OpenError),
    #[error("a session's environment is not what was sealed")]
    Environment(#[from] serde_json::Error),
}

/// A session to make, its services known to exist.
#[derive(Debug)]
pub(crate) struct NewSession {
    pub(crate) services: Vec<ServiceId>,
    pub(crate) ttl_secs: Option<u64>,
    pub(crate) scopes: BTreeMap<ServiceId, Vec<String>>,
}

/// A session that is not kept yet.
#[derive(Debug)]
pub(crate) struct Minted {
    pub(crate) session: Session,
    pub(crate) tokens: Vec<Token>,
}

/// A session with its environment opened.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) id: SessionId,
    pub(crate) created_at: Timestamp,
    pub(crate) expires_at: Option<Timestamp>,
    pub(crate) services: Vec<ServiceId>,
    pub(crate) environment: BTreeMap<String, String>,
}

/// Sessions of all tenants. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Sessions {
    store: Store,
    vault: Arc<Vault>,
    proxy: Proxy,
    proxy_url: BaseUrl,
    /// Of one tenant.
    most: Option<u64>,
    /// Held from counting to making: of two at once, one may be too many.
    admission: Arc<tokio::sync::Mutex<()>>,
}

impl Sessions {
    pub(crate) fn new(
        store: Store,
        vault: Arc<Vault>,
        proxy: Proxy,
        proxy_url: BaseUrl,
        most: Option<u64>,
    ) -> Self {
        Self { store, vault, proxy, proxy_url, most, admission: Arc::default() }
    }

    /// Makes a session: one token a service.
    pub(crate) async fn create(
        &self,
        tenant: TenantId,
        role: Role,
        new: NewSession,
    ) -> Result<Opened, SessionError> {
        let minted = self.mint(tenant, role, new)?;
        let _admission = self.admission(&minted.session.tenant).await?;
        self.store.insert_session(&minted.session, &minted.tokens).await?;
        self.opened(minted)
    }

    /// Makes one that is not kept yet.
    pub(crate) fn mint(
        &self,
        tenant: TenantId,
        role: Role,
        new: NewSession,
    ) -> Result<Minted, SessionError> {
        check_services(&new.services)?;
        let scopes = check_scopes(&new)?;
        let now = store::now();
        let expires_at = new.ttl_secs.map(|secs| expiry(now, secs)).transpose()?;
        let id = SessionId::random();
        let (mut environment, mut tokens) = (BTreeMap::new(), Vec::new());
        for service in &new.services {
            let key_tenant = self.key_tenant(&tenant, role, service)?;
            let token = PhantomToken::random();
            if let Some(provider) = self.proxy.providers().get(service.as_str()) {
                self.add_variables(&mut environment, provider, &token);
            }
            tokens.push(Token {
                hash: self.vault.token_hash(&token),
                session: id.clone(),
                tenant: tenant.clone(),
                key_tenant,
                service: service.clone(),
                scopes: scopes.get(service).cloned(),
                expires_at,
            });
        }
        let text = Secret::new(serde_json::to_string(&environment)?);
        let session = Session {
            sealed_env: self.vault.seal(&place(&id), &text),
            id,
            tenant,
            created_at: now,
            expires_at,
            services: new.services,
        };
        Ok(Minted { session, tokens })
    }

    /// The right of a tenant to keep one more, until it is dropped.
    pub(crate) async fn admission(
        &self,
        tenant: &TenantId,
    ) -> Result<MutexGuard<'_, ()>, SessionError> {
        let admission = self.admission.lock().await;
        match self.most {
            Some(most) if self.store.usage(tenant).await?.sessions >= most => {
                Err(SessionError::Quota(most))
            }
            _ => Ok(admission),
        }
    }

    /// Puts one that is kept in force.
    pub(crate) fn opened(&self, minted: Minted) -> Result<Opened, SessionError> {
        // Checked when it was minted: what was parsed once parses again.
        drop(self.proxy.book().admit(minted.tokens));
        self.open(minted.session)
    }

    pub(crate) async fn list(&self, whose: Whose<'_>) -> Result<Vec<Opened>, SessionError> {
        let sessions = self.store.sessions(whose).await?;
        sessions.into_iter().map(|session| self.open(session)).collect()
    }

    pub(crate) async fn get(&self, whose: Whose<'_>, id: &str) -> Result<Opened, SessionError> {
        let (session, _) = self.find(whose, id).await?;
        Ok(session)
    }

    /// Removes a session. Its tokens stop working at once, also in the middle of a stream.
    pub(crate) async fn close(&self, whose: Whose<'_>, id: &str) -> Result<(), SessionError> {
        let missing = || SessionError::Missing(shortened(id));
        let id: SessionId = id.parse().map_err(|_| missing())?;
        if !self.store.delete_session(whose, &id).await? {
            return Err(missing());
        }
        self.proxy.book().withdraw(&id);
        Ok(())
    }

    /// Takes the tokens of a session that is not kept any more out of force.
    pub(crate) fn withdraw(&self, id: &SessionId) {
        self.proxy.book().withdraw(id);
    }

    /// What a jail of this session gets, and whose it is; only while the session lasts.
    pub(crate) async fn access(
        &self,
        whose: Whose<'_>,
        id: &str,
    ) -> Result<(SessionAccess, TenantId), SessionError> {
        let (session, tenant) = self.find(whose, id).await?;
        if session.expires_at.is_some_and(|end| end <= Timestamp::now()) {
            return Err(SessionError::Expired);
        }
        let environment = session.environment.into_iter().collect();
        Ok((SessionAccess { id: session.id, environment }, tenant))
    }

    /// Removes sessions that expired long ago.
    pub(crate) async fn reap(&self) -> Result<(), SessionError> {
        let before = Timestamp::now() - KEPT_AFTER_EXPIRY;
        for id in self.store.delete_sessions_expired_before(before).await? {
            self.proxy.book().withdraw(&id);
        }
        Ok(())
    }

    async fn find(&self, whose: Whose<'_>, id: &str) -> Result<(Opened, TenantId), SessionError> {
        let missing = || SessionError::Missing(shortened(id));
        let id: SessionId = id.parse().map_err(|_| missing())?;
        let session = self.store.session(whose, &id).await?.ok_or_else(missing)?;
        let tenant = session.tenant.clone();
        Ok((self.open(session)?, tenant))
    }

    fn open(&self, session: Session) -> Result<Opened, SessionError> {
        let text = self.vault.open(&place(&session.id), &session.sealed_env)?;
        Ok(Opened {
            environment: serde_json::from_str(text.expose())?,
            id: session.id,
            created_at: session.created_at,
            expires_at: session.expires_at,
            services: session.services,
        })
    }

    /// Whose key a token will use: the tenant's own, or for admins that of `dev`.
    fn key_tenant(
        &self,
        tenant: &TenantId,
        role: Role,
        service: &ServiceId,
    ) -> Result<TenantId, SessionError> {
        let has = |tenant: &TenantId| self.proxy.book().has_key(tenant, service);
        let dev = TenantId::dev();
        if has(tenant) {
            Ok(tenant.clone())
        } else if role == Role::Admin && has(&dev) {
            Ok(dev)
        } else {
            Err(SessionError::NoCredential { service: service.clone(), tenant: tenant.clone() })
        }
    }

    fn add_variables(
        &self,
        environment: &mut BTreeMap<String, String>,
        provider: &Provider,
        token: &PhantomToken,
    ) {
        let url = format!("{}/v1/{}{}", self.proxy_url, provider.service, provider.url_suffix);
        environment.insert(provider.key_variable.clone(), token.reveal().expose().to_owned());
        environment.insert(provider.url_variable.clone(), url);
    }
}

fn place(id: &SessionId) -> String {
    format!("session/{id}")
}

/// An id as sent, short enough to be said back.
fn shortened(id: &str) -> String {
    id.chars().take(64).collect()
}

fn check_services(services: &[ServiceId]) -> Result<(), SessionError> {
    if services.is_empty() {
        return Err(SessionError::NoServices);
    }
    for (n, service) in services.iter().enumerate() {
        if services[..n].contains(service) {
            return Err(SessionError::Twice(service.clone()));
        }
    }
    Ok(())
}

fn check_scopes(new: &NewSession) -> Result<BTreeMap<ServiceId, Vec<String>>, SessionError> {
    for (service, globs) in &new.scopes {
        if !new.services.contains(service) {
            return Err(SessionError::ScopeElsewhere(service.clone()));
        }
        if globs.is_empty() {
            return Err(SessionError::EmptyScope(service.clone()));
        }
        if globs.len() > MOST_SCOPES {
            return Err(SessionError::TooManyScopes(service.clone()));
        }
        for (index, glob) in globs.iter().enumerate() {
            let bad = |error| SessionError::BadScope { service: service.clone(), index, error };
            glob.parse::<Scope>().map_err(bad)?;
        }
    }
    Ok(new.scopes.clone())
}

fn expiry(now: Timestamp, secs: u64) -> Result<Timestamp, SessionError> {
    if !(1..=LONGEST_TTL_SECS).contains(&secs) {
        return Err(SessionError::Ttl);
    }
    let secs = i64::try_from(secs).map_err(|_| SessionError::Ttl)?;
    Ok(now + SignedDuration::from_secs(secs))
}
