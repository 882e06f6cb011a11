//! What the proxy knows: tokens by hash, keys by tenant and service. In memory, as the store has it.
//!
//! The store is written first, by the service that changes it; then the book. Whoever holds a
//! [`Grant`] or [`Key`] is told when it is withdrawn, in the middle of a stream, too.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use ids::{ServiceId, SessionId, TenantId};
use jiff::Timestamp;
use secret::{OpenError, PhantomToken, Sealed, Secret, TokenHash, Vault};
use store::{Credential, Store, StoreError, Token, Whose};
use tokio_util::sync::CancellationToken;

use crate::scope::{Scope, ScopeError};

/// What a phantom token stands for.
#[derive(Debug)]
pub struct Grant {
    pub session: SessionId,
    pub tenant: TenantId,
    /// Whose key is used.
    pub key_tenant: TenantId,
    pub service: ServiceId,
    /// `None` is no restriction.
    pub scopes: Option<Vec<Scope>>,
    pub expires_at: Option<Timestamp>,
    /// Cancelled when the session is closed.
    pub(crate) withdrawn: CancellationToken,
}

/// A real key, sealed until it is used.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    sealed: Sealed,
    place: String,
    /// Cancelled when the credential is deleted.
    pub(crate) withdrawn: CancellationToken,
}

impl Key {
    pub(crate) fn open(&self, vault: &Vault) -> Result<Secret, OpenError> {
        vault.open(&self.place, &self.sealed)
    }
}

/// Tokens and keys in force. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Book(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    vault: Arc<Vault>,
    grants: RwLock<HashMap<TokenHash, Arc<Grant>>>,
    keys: RwLock<HashMap<(TenantId, ServiceId), Key>>,
}

/// Why the book could not be filled.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("a stored scope is not one")]
    Scope(#[from] ScopeError),
}

impl Book {
    /// Reads what the store has.
    pub async fn load(store: &Store, vault: Arc<Vault>) -> Result<Self, LoadError> {
        let book =
            Self(Arc::new(Inner { vault, grants: RwLock::default(), keys: RwLock::default() }));
        for credential in store.credentials(Whose::Everyone).await? {
            book.put_key(&credential);
        }
        let mut sessions: HashMap<SessionId, Vec<Token>> = HashMap::new();
        for token in store.tokens_of_everyone().await? {
            sessions.entry(token.session.clone()).or_default().push(token);
        }
        for tokens in sessions.into_values() {
            book.admit(tokens)?;
        }
        Ok(book)
    }

    /// Puts a session's tokens in force.
    pub fn admit(&self, tokens: Vec<Token>) -> Result<(), ScopeError> {
        let withdrawn = CancellationToken::new();
        let grants = tokens.into_iter().map(|token| grant(token, &withdrawn));
        let grants: Vec<_> = grants.collect::<Result<_, _>>()?;
        write(&self.0.grants).extend(grants);
        Ok(())
    }

    /// Withdraws a session's tokens, also from streams that are under way.
    pub fn withdraw(&self, session: &SessionId) {
        write(&self.0.grants).retain(|_, grant| {
            if grant.session == *session {
                grant.withdrawn.cancel();
            }
            grant.session != *session
        });
    }

    /// Puts a key in force. Exchanges under way with a former one go on.
    pub fn put_key(&self, credential: &Credential) {
        let (tenant, service) = (credential.tenant.clone(), credential.service.clone());
        let place = sealing_place(&tenant, &service);
        let mut keys = write(&self.0.keys);
        let withdrawn = keys.get(&(tenant.clone(), service.clone()));
        let withdrawn = withdrawn.map(|key| key.withdrawn.clone()).unwrap_or_default();
        let sealed = credential.sealed.clone();
        keys.insert((tenant, service), Key { sealed, place, withdrawn });
    }

    /// Withdraws a key, also from streams that are under way.
    pub fn remove_key(&self, tenant: &TenantId, service: &ServiceId) {
        if let Some(key) = write(&self.0.keys).remove(&(tenant.clone(), service.clone())) {
            key.withdrawn.cancel();
        }
    }

    /// Whether a tenant has a key for a service.
    pub fn has_key(&self, tenant: &TenantId, service: &ServiceId) -> bool {
        read(&self.0.keys).contains_key(&(tenant.clone(), service.clone()))
    }

    /// How many keys there are.
    pub fn count_keys(&self) -> usize {
        read(&self.0.keys).len()
    }

    /// What a token stands for at a moment; `None` if it is unknown, withdrawn or expired.
    pub(crate) fn grant(&self, token: &PhantomToken, now: Timestamp) -> Option<Arc<Grant>> {
        let hash = self.0.vault.token_hash(token);
        let grant = read(&self.0.grants).get(&hash).cloned()?;
        grant.expires_at.is_none_or(|end| now < end).then_some(grant)
    }

    pub(crate) fn key(&self, tenant: &TenantId, service: &ServiceId) -> Option<Key> {
        read(&self.0.keys).get(&(tenant.clone(), service.clone())).cloned()
    }

    pub(crate) fn vault(&self) -> &Vault {
        &self.0.vault
    }
}

/// Where a credential is sealed for: it opens nowhere else.
pub fn sealing_place(tenant: &TenantId, service: &ServiceId) -> String {
    format!("credential/{tenant}/{service}")
}

fn grant(
    token: Token,
    withdrawn: &CancellationToken,
) -> Result<(TokenHash, Arc<Grant>), ScopeError> {
    let scopes = token.scopes.map(|scopes| scopes.iter().map(|scope| scope.parse()).collect());
    let grant = Grant {
        session: token.session,
        tenant: token.tenant,
        key_tenant: token.key_tenant,
        service: token.service,
        scopes: scopes.transpose()?,
        expires_at: token.expires_at,
        withdrawn: withdrawn.clone(),
    };
    Ok((token.hash, Arc::new(grant)))
}

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
