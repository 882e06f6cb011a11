//! The options that every way of running shares: as sent, and as meant.

use std::time::Duration;

use egress::{Policy, Rule, TrafficLimits};
use httpkit::{ApiError, Kind};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use crate::config::ExecConfig;
use crate::network::Mode;

const MOST_DOMAINS: usize = 32;
const LONGEST_DOMAIN: usize = 253;
const MOST_MEMORY_MB: u64 = 8192;
const MOST_TIMEOUT_SECS: u64 = 3600;
const MOST_CPU_PERCENT: u64 = 800;
const MOST_PIDS: u64 = 1024;

const OPEN_FILES: u64 = 4096;
const TMP_BYTES: u64 = 100 << 20;

/// Size of `/output`, and of a workspace that is made for one command. Both are memory, so the
/// jail's memory limit counts what is in them.
pub(crate) const TREE_BYTES: u64 = 1 << 30;

/// Options as sent.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
pub(crate) struct ExecOptions {
    /// Wall time. Default 300, from 1 to 3600.
    pub(crate) timeout_secs: Option<u64>,
    /// Default 512, at most 8192.
    pub(crate) memory_mb: Option<u64>,
    pub(crate) network: Option<NetworkSpec>,
    pub(crate) seccomp: Option<SeccompSpec>,
    /// Of one CPU. Default 100, from 1 to 800.
    pub(crate) cpu_percent: Option<u64>,
    /// Processes and threads. Default 64, from 1 to 1024.
    pub(crate) max_pids: Option<u64>,
    /// Runtimes to put in, by name: see `GET /v1/flavors`.
    pub(crate) flavors: Option<Vec<String>>,
    /// A root file system in place of the server's system directories, by name: see `GET /v1/images`.
    pub(crate) image: Option<String>,
}

/// What a jail may reach.
#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
#[serde(tag = "mode", rename_all = "lowercase")]
pub(crate) enum NetworkSpec {
    None,
    Loopback,
    /// 1 to 32 entries: a host name, `*.suffix` for any name below it, an address or a network such as
    /// `203.0.113.0/24`; each optionally `:port`.
    Allowlist {
        domains: Vec<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        limits: Option<NetworkLimits>,
    },
}

/// How much a jail with an allowlist may do. What is left out is not limited, but for 256 connections
/// at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NetworkLimits {
    /// Open at once, from 1 to 256.
    #[serde(skip_serializing_if = "Option::is_none")]
    connections: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connections_per_second: Option<u32>,
    /// Sent and received together.
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_per_second: Option<u64>,
    /// Sent and received together, over the life of the jail.
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
}

/// Which system calls a jail may make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SeccompSpec {
    Standard,
    /// Without sockets.
    Strict,
}

/// Options as meant.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) limits: Limits,
    pub(crate) mode: Mode,
    pub(crate) seccomp: SeccompSpec,
    pub(crate) flavors: Vec<String>,
    pub(crate) image: Option<String>,
    network: NetworkSpec,
}

/// Limits as meant: in range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) timeout: Duration,
    pub(crate) memory_mb: u64,
    pub(crate) cpu_percent: u32,
    pub(crate) max_pids: u32,
}

impl ExecOptions {
    /// Checks and fills in what was left out.
    pub(crate) fn settings(self, config: &ExecConfig) -> Result<Settings, ApiError> {
        let memory_mb = self.memory_mb.unwrap_or(config.default_memory_mb);
        if memory_mb == 0 {
            return Err(invalid("memory_mb must be at least 1"));
        }
        let clamped = |value: Option<u64>, default: u64, most: u64| {
            u32::try_from(value.unwrap_or(default).clamp(1, most)).unwrap_or(u32::MAX)
        };
        let timeout_secs =
            clamped(self.timeout_secs, config.default_timeout_secs, MOST_TIMEOUT_SECS);
        let network = self.network.unwrap_or(NetworkSpec::None);
        let mut flavors = self.flavors.unwrap_or_default();
        // The same flavor twice is the same flavor; the first place counts.
        let mut seen = std::collections::HashSet::new();
        flavors.retain(|flavor| seen.insert(flavor.clone()));
        Ok(Settings {
            limits: Limits {
                timeout: Duration::from_secs(timeout_secs.into()),
                memory_mb: memory_mb.min(MOST_MEMORY_MB),
                cpu_percent: clamped(self.cpu_percent, 100, MOST_CPU_PERCENT),
                max_pids: clamped(self.max_pids, 64, MOST_PIDS),
            },
            mode: mode(&network)?,
            seccomp: self.seccomp.unwrap_or(SeccompSpec::Standard),
            flavors,
            image: self.image,
            network,
        })
    }
}

impl Settings {
    /// Those of a caller who said nothing.
    pub(crate) fn plain(config: &ExecConfig) -> Self {
        Self {
            limits: Limits {
                timeout: Duration::from_secs(config.default_timeout_secs),
                memory_mb: config.default_memory_mb,
                cpu_percent: 100,
                max_pids: 64,
            },
            mode: Mode::None,
            seccomp: SeccompSpec::Standard,
            flavors: Vec::new(),
            image: None,
            network: NetworkSpec::None,
        }
    }

    pub(crate) fn flavors(&self) -> &[String] {
        &self.flavors
    }

    /// As the ledger shows them.
    pub(crate) fn shown(&self) -> serde_json::Value {
        let mut shown = json!({
            "network_mode": self.network.mode(),
            "seccomp": self.seccomp,
            "memory_mb": self.limits.memory_mb,
            "timeout_secs": self.limits.timeout.as_secs(),
            "cpu_percent": self.limits.cpu_percent,
            "max_pids": self.limits.max_pids,
        });
        if let NetworkSpec::Allowlist { domains, limits } = &self.network {
            shown["network_domains"] = json!(domains);
            if let Some(limits) = limits {
                shown["network_limits"] = json!(limits);
            }
        }
        if !self.flavors.is_empty() {
            shown["flavors"] = json!(self.flavors);
        }
        if let Some(image) = &self.image {
            shown["image"] = json!(image);
        }
        shown
    }

    pub(crate) fn profile(&self) -> jail::Profile {
        match self.seccomp {
            SeccompSpec::Standard => jail::Profile::Standard,
            SeccompSpec::Strict => jail::Profile::Strict,
        }
    }
}

impl Limits {
    pub(crate) fn of_jail(self) -> jail::Limits {
        jail::Limits {
            memory_bytes: self.memory_mb << 20,
            cpu_percent: self.cpu_percent,
            pids: self.max_pids,
            open_files: OPEN_FILES,
            tmp_bytes: TMP_BYTES,
            cpu_weight: None,
            io_bytes_per_second: None,
        }
    }
}

impl NetworkSpec {
    fn mode(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Loopback => "loopback",
            Self::Allowlist { .. } => "allowlist",
        }
    }
}

fn mode(network: &NetworkSpec) -> Result<Mode, ApiError> {
    let (domains, limits) = match network {
        NetworkSpec::None => return Ok(Mode::None),
        NetworkSpec::Loopback => return Ok(Mode::Loopback),
        NetworkSpec::Allowlist { domains, limits } => (domains, limits.unwrap_or_default()),
    };
    if domains.is_empty() {
        return Err(invalid("network.domains: allowlist must contain at least one domain"));
    }
    for (field, zero) in [
        ("connections", limits.connections == Some(0)),
        ("connections_per_second", limits.connections_per_second == Some(0)),
        ("bytes_per_second", limits.bytes_per_second == Some(0)),
        ("bytes", limits.bytes == Some(0)),
    ] {
        if zero {
            return Err(invalid(format!(
                "network.limits.{field}: must be at least 1; for no network use mode `none`"
            )));
        }
    }
    let limits = TrafficLimits {
        connections: limits.connections,
        connections_per_second: limits.connections_per_second,
        bytes_per_second: limits.bytes_per_second,
        bytes: limits.bytes,
    };
    Ok(Mode::Allowlist(policy(domains)?, limits))
}

/// The policy that a list of domains means.
pub(crate) fn policy(domains: &[String]) -> Result<Policy, ApiError> {
    if domains.len() > MOST_DOMAINS {
        return Err(invalid(format!(
            "network.domains: allowlist limited to {MOST_DOMAINS} domains"
        )));
    }
    let rules = domains.iter().enumerate().map(|(n, domain)| rule(n, domain));
    Ok(Policy::new(rules.collect::<Result<_, _>>()?))
}

fn rule(n: usize, domain: &str) -> Result<Rule, ApiError> {
    let field = format!("network.domains[{n}]");
    if domain.len() > LONGEST_DOMAIN {
        return Err(invalid(format!("{field}: longer than {LONGEST_DOMAIN} characters")));
    }
    domain.parse().map_err(|error| invalid(format!("{field}: invalid domain: {domain:?}: {error}")))
}

fn invalid(text: impl Into<String>) -> ApiError {
    ApiError::said(Kind::Invalid, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(body: serde_json::Value) -> Result<Settings, ApiError> {
        let options: ExecOptions = serde_json::from_value(body).unwrap();
        options.settings(&ExecConfig::default())
    }

    #[test]
    fn limits_have_defaults_and_ranges() {
        let limits = settings(json!({})).unwrap().limits;
        assert_eq!((limits.memory_mb, limits.timeout.as_secs()), (512, 300));
        assert_eq!((limits.cpu_percent, limits.max_pids), (100, 64));
        let most = settings(json!({
            "timeout_secs": u64::MAX, "memory_mb": u64::MAX, "cpu_percent": u64::MAX, "max_pids": u64::MAX
        }));
        let most = most.unwrap().limits;
        assert_eq!((most.memory_mb, most.timeout.as_secs()), (8192, 3600));
        assert_eq!((most.cpu_percent, most.max_pids), (800, 1024));
        let least = settings(json!({"timeout_secs": 0, "cpu_percent": 0, "max_pids": 0})).unwrap();
        assert_eq!((least.limits.timeout.as_secs(), least.limits.max_pids), (1, 1));
        assert!(settings(json!({"memory_mb": 0})).unwrap_err().text().contains("memory_mb"));
    }

    #[test]
    fn an_allowlist_is_checked_entry_by_entry() {
        let with = |domains: serde_json::Value| {
            settings(json!({"network": {"mode": "allowlist", "domains": domains}}))
        };
        assert!(with(json!(["example.com", "*.example.com:8080"])).is_ok());
        for bad in [
            json!([]),
            json!([""]),
            json!(["https://a.b"]),
            json!(["a b"]),
            json!(["x".repeat(254)]),
        ] {
            assert!(with(bad.clone()).unwrap_err().text().starts_with("network.domains"), "{bad}");
        }
        assert!(with(json!(vec!["a.b"; 33])).is_err());
    }

    #[test]
    fn a_flavor_named_twice_is_one() {
        let settings = settings(json!({"flavors": ["b", "a", "b"]})).unwrap();
        assert_eq!(settings.flavors, ["b", "a"]);
    }
}
