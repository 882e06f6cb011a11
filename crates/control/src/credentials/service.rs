//! The rules of credentials.

use std::sync::Arc;

use ids::{ServiceId, TenantId};
use phantom::{Proxy, sealing_place};
use secret::{Secret, Vault};
use store::{Credential, Store, StoreError, Whose};
use tokio::sync::Mutex;

/// Why a key was not kept, or not removed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CredentialError {
    #[error("secret must be non-empty")]
    Blank,
    #[error("secret must be one line of printable ASCII characters: it is sent in a header")]
    Unprintable,
    #[error("unknown service {name}: known are {known}")]
    UnknownService { name: String, known: String },
    #[error("credential {0}")]
    Missing(ServiceId),
    #[error("the store failed")]
    Store(#[from] StoreError),
}

/// Keys of all tenants. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Credentials {
    store: Store,
    vault: Arc<Vault>,
    proxy: Proxy,
    /// The store and the proxy's book change together: of two writers, the last in one must be the
    /// last in the other.
    order: Arc<Mutex<()>>,
}

impl Credentials {
    pub(crate) fn new(store: Store, vault: Arc<Vault>, proxy: Proxy) -> Self {
        Self { store, vault, proxy, order: Arc::default() }
    }

    /// Keeps a key, or puts it in the place of a former one. In force at once, for tokens given out
    /// before, too.
    pub(crate) async fn put(
        &self,
        tenant: TenantId,
        service: ServiceId,
        secret: &Secret,
    ) -> Result<Credential, CredentialError> {
        if secret.expose().trim().is_empty() {
            return Err(CredentialError::Blank);
        }
        if !secret.expose().bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
            return Err(CredentialError::Unprintable);
        }
        let now = store::now();
        let credential = Credential {
            sealed: self.vault.seal(&sealing_place(&tenant, &service), secret),
            fingerprint: self.vault.fingerprint(secret),
            tenant,
            service,
            added_at: now,
            updated_at: now,
        };
        let _order = self.order.lock().await;
        let kept = self.store.put_credential(&credential).await?;
        self.proxy.book().put_key(&kept);
        Ok(kept)
    }

    pub(crate) async fn list(&self, whose: Whose<'_>) -> Result<Vec<Credential>, CredentialError> {
        Ok(self.store.credentials(whose).await?)
    }

    /// Removes a key. Its phantom tokens stop working at once, also in the middle of a stream.
    pub(crate) async fn remove(
        &self,
        tenant: &TenantId,
        service: ServiceId,
    ) -> Result<(), CredentialError> {
        let _order = self.order.lock().await;
        if !self.store.delete_credential(tenant, &service).await? {
            return Err(CredentialError::Missing(service));
        }
        self.proxy.book().remove_key(tenant, &service);
        Ok(())
    }

    /// The service of a name, if there is an upstream for it.
    pub(crate) fn service(&self, name: &str) -> Result<ServiceId, CredentialError> {
        let providers = self.proxy.providers();
        let known = || providers.iter().map(|p| p.service.as_str()).collect::<Vec<_>>().join(", ");
        match providers.get(name) {
            Some(provider) => Ok(provider.service.clone()),
            None => Err(CredentialError::UnknownService {
                name: name.chars().take(64).collect(),
                known: known(),
            }),
        }
    }
}
