//! Which host user a tenant's jails run as.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use ids::TenantId;

/// Users of the range: as many tenants as one server will see before it is started anew.
const RANGE: u32 = 1 << 20;

/// Gives each tenant a host id of its own, at its first jail. Nothing on disk belongs to one yet, so
/// they need not be the same after a restart.
#[derive(Debug)]
pub(crate) struct HostIds {
    first: u32,
    given: Mutex<HashMap<TenantId, u32>>,
}

impl HostIds {
    pub(crate) fn from(first: u32) -> Self {
        Self { first, given: Mutex::default() }
    }

    /// `None` when the range is used up: two tenants must not share one.
    pub(crate) fn of(&self, tenant: &TenantId) -> Option<u32> {
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(id) = given.get(tenant) {
            return Some(*id);
        }
        let number = u32::try_from(given.len()).ok().filter(|number| *number < RANGE)?;
        let id = self.first.checked_add(number)?;
        given.insert(tenant.clone(), id);
        Some(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_tenants_share_one() {
        let ids = HostIds::from(5000);
        let of = |name: &str| ids.of(&name.parse().unwrap());
        assert_eq!((of("a"), of("b"), of("a")), (Some(5000), Some(5001), Some(5000)));
        assert_eq!(HostIds::from(u32::MAX).of(&"a".parse().unwrap()), Some(u32::MAX));
        let full = HostIds::from(u32::MAX);
        assert!(
            full.of(&"a".parse().unwrap()).is_some() && full.of(&"b".parse().unwrap()).is_none()
        );
    }
}
