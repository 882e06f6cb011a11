//! Which host user a tenant's jails run as, and its files belong to.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use ids::TenantId;
use store::Store;

use super::error::ExecError;

/// Gives each tenant a host id of its own, at its first jail, for good: its files bear it.
#[derive(Debug)]
pub(crate) struct HostIds {
    store: Store,
    first: u32,
    /// More tenants than one server will ever see, but in a container.
    count: u32,
    known: Mutex<HashMap<TenantId, u32>>,
}

impl HostIds {
    pub(crate) fn new(store: Store, first: u32) -> Self {
        Self { store, first, count: jail::host_ids_from(first), known: Mutex::default() }
    }

    /// An error when the range is used up: two tenants must not share one.
    pub(crate) async fn of(&self, tenant: &TenantId) -> Result<u32, ExecError> {
        if let Some(id) = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(tenant) {
            return Ok(*id);
        }
        let number = self.store.host_number(tenant).await?;
        let number = u32::try_from(number).ok().filter(|number| *number < self.count);
        let id = number.and_then(|number| self.first.checked_add(number));
        let id = id.ok_or(ExecError::NoHostId)?;
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(tenant.clone(), id);
        Ok(id)
    }
}
