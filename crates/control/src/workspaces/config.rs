//! A workspace's settings, as kept and shown: JSON, one way and back.

use serde_json::{Value, json};

use crate::exec::{ExecOptions, NetworkSpec, SeccompSpec, Settings};

/// Settings as a workspace keeps and shows them.
pub(super) fn config(settings: &Settings, idle_timeout_secs: u64) -> Value {
    let mut config = settings.shown();
    if config.get("network_domains").is_none() {
        config["network_domains"] = json!([]);
    }
    config["idle_timeout_secs"] = json!(idle_timeout_secs);
    config["flavors"] = json!(settings.flavors());
    config
}

/// The other way round.
pub(super) fn options(config: &Value) -> Result<ExecOptions, serde_json::Error> {
    let network = match config["network_mode"].as_str() {
        Some("loopback") => NetworkSpec::Loopback,
        Some("allowlist") => NetworkSpec::Allowlist {
            domains: serde_json::from_value(config["network_domains"].clone())?,
            limits: config
                .get("network_limits")
                .cloned()
                .map(serde_json::from_value)
                .transpose()?,
        },
        _ => NetworkSpec::None,
    };
    let seccomp: SeccompSpec = serde_json::from_value(config["seccomp"].clone())?;
    Ok(ExecOptions {
        timeout_secs: config["timeout_secs"].as_u64(),
        memory_mb: config["memory_mb"].as_u64(),
        network: Some(network),
        seccomp: Some(seccomp),
        cpu_percent: config["cpu_percent"].as_u64(),
        max_pids: config["max_pids"].as_u64(),
        flavors: Some(serde_json::from_value(config["flavors"].clone())?),
        image: config["image"].as_str().map(str::to_owned),
    })
}
