//! How many commands may run at once: on the whole server, and of one tenant.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ids::TenantId;

use super::error::ExecError;

/// Counts those that run, and those that are about to. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Places(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    all: u64,
    each: Option<u64>,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: u64,
    of: HashMap<TenantId, u64>,
}

/// The right to run one command. Dropping it, and all that share it, gives it back.
#[derive(Debug)]
pub(crate) struct Place(Arc<Counted>);

#[derive(Debug)]
struct Counted {
    places: Places,
    tenant: TenantId,
}

impl Place {
    /// For a command that runs beside, and for which this place will do.
    pub(crate) fn share(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl Places {
    pub(crate) fn new(all: usize, each: Option<u64>) -> Self {
        Self(Arc::new(Inner { all: all as u64, each, taken: Mutex::default() }))
    }

    pub(crate) fn take_one(&self, tenant: &TenantId) -> Result<Place, ExecError> {
        let place = self.take(tenant, 1)?.pop();
        place.ok_or(ExecError::TooMany)
    }

    /// Several, or none.
    pub(crate) fn take(&self, tenant: &TenantId, number: u32) -> Result<Vec<Place>, ExecError> {
        let more = u64::from(number);
        let mut taken = self.lock();
        let own = taken.of.get(tenant).copied().unwrap_or_default();
        if let Some(most) = self.0.each.filter(|most| own + more > *most) {
            return Err(ExecError::Quota(most));
        }
        if taken.all + more > self.0.all {
            return Err(ExecError::TooMany);
        }
        taken.all += more;
        taken.of.insert(tenant.clone(), own + more);
        drop(taken);
        let place = || Place(Arc::new(Counted { places: self.clone(), tenant: tenant.clone() }));
        Ok((0..number).map(|_| place()).collect())
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.0.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let Self { places, tenant } = self;
        let mut taken = places.lock();
        taken.all = taken.all.saturating_sub(1);
        if let Some(own) = taken.of.get_mut(tenant) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                taken.of.remove(tenant);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_takes_more_than_their_own_or_than_there_are() {
        let places = Places::new(4, Some(3));
        let (a, b) = ("a".parse().unwrap(), "b".parse().unwrap());
        let taken = places.take(&a, 3).unwrap();
        assert!(matches!(places.take_one(&a), Err(ExecError::Quota(3))));
        assert!(matches!(places.take(&b, 2), Err(ExecError::TooMany)));
        let other = places.take_one(&b).unwrap();
        drop(taken);
        assert_eq!(places.take(&a, 3).unwrap().len(), 3);
        let beside = other.share();
        drop(other);
        assert_eq!(places.lock().of.len(), 1, "still taken by the one beside");
        drop(beside);
        assert!(places.lock().of.is_empty() && places.lock().all == 0);
    }
}
