//! How many requests a tenant may make.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use ids::TenantId;

/// Seconds' worth of requests that may come at once.
const BURST: f64 = 2.0;

/// A bucket a tenant. Only known tenants have one, so that their number is bounded.
#[derive(Debug, Clone)]
pub(crate) struct Rates(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    per_second: Option<f64>,
    buckets: Mutex<HashMap<TenantId, Bucket>>,
}

#[derive(Debug)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl Rates {
    pub(crate) fn new(per_second: Option<u32>) -> Self {
        let per_second = per_second.map(f64::from);
        Self(Arc::new(Inner { per_second, buckets: Mutex::default() }))
    }

    /// Takes a request's worth; the error says after how many seconds to try again.
    pub(crate) fn take(&self, tenant: &TenantId, now: Instant) -> Result<(), f64> {
        let Some(per_second) = self.0.per_second else { return Ok(()) };
        let mut buckets = self.0.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let full = per_second * BURST;
        let bucket = buckets.entry(tenant.clone()).or_insert(Bucket { left: full, at: now });
        let gained = now.saturating_duration_since(bucket.at).as_secs_f64() * per_second;
        bucket.left = (bucket.left + gained).min(full);
        bucket.at = now;
        if bucket.left < 1.0 {
            return Err((1.0 - bucket.left) / per_second);
        }
        bucket.left -= 1.0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_is_let_through_and_then_only_the_rate() {
        let (rates, now) = (Rates::new(Some(10)), Instant::now());
        let (a, b) = ("a".parse().unwrap(), "b".parse().unwrap());
        assert_eq!((0..30).filter(|_| rates.take(&a, now).is_ok()).count(), 20);
        assert!(rates.take(&a, now).unwrap_err() <= 0.1);
        assert!(rates.take(&b, now).is_ok(), "another tenant's are its own");
        let later = now + Duration::from_millis(500);
        assert_eq!((0..30).filter(|_| rates.take(&a, later).is_ok()).count(), 5);
        assert!(Rates::new(None).take(&a, now).is_ok());
    }
}
