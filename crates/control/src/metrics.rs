//! What Prometheus sees. No label is a tenant's to choose.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// Counters. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Metrics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    request_seconds: Family<RouteLabels, Histogram>,
    jails_running: Gauge,
    jails_ended: Family<OutcomeLabels, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: &'static str,
    route: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    method: &'static str,
    route: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("agentjail");
        let requests = Family::default();
        // From a tenth of a millisecond to about a minute and a half.
        let histogram = || Histogram::new(exponential_buckets(0.0001, 2.0, 20));
        let request_seconds = Family::new_with_constructor(histogram as fn() -> Histogram);
        let jails_running = Gauge::default();
        let jails_ended = Family::default();
        registry.register("http_requests", "Requests answered", requests.clone());
        registry.register(
            "http_request_seconds",
            "Time to the head of the response",
            request_seconds.clone(),
        );
        registry.register("jails_running", "Jails running now", jails_running.clone());
        registry.register("jails_ended", "Jails ended, by how", jails_ended.clone());
        Self(Arc::new(Inner { registry, requests, request_seconds, jails_running, jails_ended }))
    }

    pub(crate) fn request(&self, method: &'static str, route: &str, status: u16, took: Duration) {
        let labels = RequestLabels { method, route: route.to_owned(), status };
        self.0.requests.get_or_create(&labels).inc();
        let labels = RouteLabels { method, route: route.to_owned() };
        self.0.request_seconds.get_or_create(&labels).observe(took.as_secs_f64());
    }

    pub(crate) fn jail_started(&self) {
        self.0.jails_running.inc();
    }

    pub(crate) fn jail_ended(&self, timed_out: bool, oom_killed: bool, cancelled: bool) {
        self.0.jails_running.dec();
        let outcome = match (timed_out, oom_killed, cancelled) {
            (_, _, true) => "cancelled",
            (true, ..) => "timed_out",
            (_, true, _) => "oom_killed",
            _ => "exited",
        };
        self.0.jails_ended.get_or_create(&OutcomeLabels { outcome }).inc();
    }

    /// The OpenMetrics text.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = encode(&mut text, &self.0.registry);
        text
    }
}
