//! From flags to a checked configuration.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use control::{
    ApiKeys, BaseUrl, Config, ExecConfig, Persistence, Quotas, SnapshotRetention, StateDir,
};
use egress::{Dialler, HostName};
use ipnet::IpNet;
use phantom::{Provider, Providers};
use secret::Secret;

use super::flags::Flags;

/// Each holds a few hundred KiB of the kernel's memory and two processes.
const MOST_WARM_JAILS: u32 = 1024;

/// Network namespaces and cgroups kept for jails of shapes that have no blank.
const MOST_SPARES: u32 = 4;

pub(super) fn configure(flags: Flags) -> anyhow::Result<(Config, jail::Config)> {
    let api_addr = address("CTL_ADDR (--ctl-addr)", &flags.ctl_addr)?;
    let proxy_addr = address("PROXY_ADDR (--proxy-addr)", &flags.proxy_addr)?;
    let proxy_base_url = match given(flags.proxy_base_url.as_deref()) {
        None => BaseUrl::of_address(proxy_addr),
        Some(url) => url.parse().context("PROXY_BASE_URL (--proxy-base-url)")?,
    };
    let providers = providers(&flags)?;
    let seeds = seeds(&flags);
    let dialler = Dialler {
        resolve: resolutions(&flags.egress_resolve).context("--egress-resolve")?,
        allow_private: networks(&flags.egress_allow_private).context("--egress-allow-private")?,
    };
    let exec = exec(&flags)?;
    let engine = engine(&flags, &proxy_base_url)?;
    refuse_unserved(&flags)?;
    let cors_origins = origins(&flags.cors_origin)?;
    let git_authorities = given(flags.git_ca.as_deref()).map(PathBuf::from);
    if let Some(file) = &git_authorities {
        std::fs::File::open(file)
            .with_context(|| format!("AGENTJAIL_GIT_CA (--git-ca) {}", file.display()))?;
    }
    // From here on things are made, once nobody else uses the directory.
    let state = StateDir::open(state_dir_of(flags.state_dir.as_deref())?)?;
    let silence = "AGENTJAIL_UPSTREAM_SILENCE_SECS (--upstream-silence-secs)";
    let config = Config {
        persistence: persistence(&flags)?,
        upstream_silence: seconds(silence, &flags.upstream_silence_secs)?,
        grace: seconds("AGENTJAIL_GRACE_SECS (--grace-secs)", &flags.grace_secs)?,
        lock: state.lock()?,
        state,
        keys: None,
        api_addr,
        proxy_addr,
        gateway_addr: given(flags.gateway_addr.as_deref())
            .map(|text| address("AGENTJAIL_GATEWAY_ADDR (--gateway-addr)", text))
            .transpose()?,
        gateway_dialler: Dialler {
            resolve: dialler.resolve.clone(),
            allow_private: networks(&flags.gateway_allow_private)
                .context("--gateway-allow-private")?,
        },
        pool_dir: given(flags.snapshot_pool_dir.as_deref()).map(PathBuf::from),
        git_authorities,
        proxy_base_url,
        providers,
        seeds,
        exec,
        dialler,
        cors_origins,
    };
    let keys = keys(&flags, &config)?;
    Ok((Config { keys, ..config }, engine))
}

/// Origins as browsers send them: anything else would never match.
fn origins(asked: &[String]) -> anyhow::Result<Vec<String>> {
    for origin in asked {
        let host = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
        if host.is_none_or(|host| host.is_empty() || host.contains(['/', '?', '#', '@', ' '])) {
            bail!(
                "--cors-origin {origin}: write an origin, such as https://app.example.com, without a path"
            );
        }
    }
    Ok(asked.to_vec())
}

fn exec(flags: &Flags) -> anyhow::Result<ExecConfig> {
    let mut exec = ExecConfig {
        max_concurrent: number(
            "AGENTJAIL_MAX_CONCURRENT (--max-concurrent)",
            &flags.max_concurrent,
        )?,
        max_agents: number("AGENTJAIL_MAX_AGENTS (--max-agents)", &flags.max_agents)?,
        output_limit_bytes: number(
            "AGENTJAIL_OUTPUT_LIMIT_BYTES (--output-limit-bytes)",
            &flags.output_limit_bytes,
        )?,
        quotas: quotas(flags)?,
        ..ExecConfig::default()
    };
    if exec.max_concurrent == 0 {
        bail!("AGENTJAIL_MAX_CONCURRENT (--max-concurrent): must be at least 1");
    }
    if let Some(id) = given(flags.host_id.as_deref()) {
        exec.first_host_id = number("AGENTJAIL_HOST_ID (--host-id)", id)?;
        if exec.first_host_id == 0 {
            bail!("AGENTJAIL_HOST_ID (--host-id): jails never run as the host's root");
        }
    }
    if flags.best_effort {
        exec.enforcement = jail::Enforcement::BestEffort;
    }
    Ok(exec)
}

fn engine(flags: &Flags, proxy_base_url: &BaseUrl) -> anyhow::Result<jail::Config> {
    let reserve: u64 =
        number("AGENTJAIL_WARM_RESERVE_MB (--warm-reserve-mb)", &flags.warm_reserve_mb)?;
    let size = number("AGENTJAIL_WARM_JAILS (--warm-jails)", &flags.warm_jails)?;
    let pool = jail::Pool {
        size,
        spares: size.min(MOST_SPARES),
        reserve_bytes: reserve.saturating_mul(1 << 20),
    };
    if pool.size > MOST_WARM_JAILS {
        bail!("AGENTJAIL_WARM_JAILS (--warm-jails): at most {MOST_WARM_JAILS}");
    }
    let hosts = control::network::hosts(proxy_base_url);
    Ok(jail::Config { pool, hosts, ..jail::Config::of_this_program()? })
}

/// The keys; without any, one that is made at first start and shown once.
fn keys(flags: &Flags, config: &Config) -> anyhow::Result<Option<ApiKeys>> {
    let given = given(flags.api_key.as_deref());
    if flags.insecure_no_auth {
        if given.is_some() {
            bail!("--insecure-no-auth contradicts AGENTJAIL_API_KEY (--api-key): leave out one");
        }
        for (name, address) in [("CTL_ADDR", config.api_addr), ("PROXY_ADDR", config.proxy_addr)] {
            if !address.ip().is_loopback() {
                bail!("--insecure-no-auth needs loopback addresses, and {name} is {address}");
            }
        }
        tracing::warn!("no authentication: everyone who reaches the API is an admin of tenant dev");
        return Ok(None);
    }
    if let Some(list) = given {
        return Ok(Some(ApiKeys::parse(list).context("AGENTJAIL_API_KEY (--api-key)")?));
    }
    let (key, first) = config.state.admin_key()?;
    let file = config.state.path().join("admin.key");
    if first == control::FirstStart::Yes {
        eprintln!(
            "agentjail: made an admin key for tenant dev. It is shown this once, and kept in {}:\n\n    {}\n",
            file.display(),
            key.expose()
        );
    } else {
        tracing::info!(file = %file.display(), "using the admin key made at first start");
    }
    Ok(Some(
        ApiKeys::parse(&format!("{}@dev:admin", key.expose()))
            .context(file.display().to_string())?,
    ))
}

/// Where the state is: as said, or where it is by default.
pub(crate) fn state_dir_of(given_directory: Option<&str>) -> anyhow::Result<PathBuf> {
    if let Some(directory) = given(given_directory) {
        return Ok(directory.into());
    }
    if rustix::process::geteuid().is_root() {
        return Ok("/var/lib/agentjail".into());
    }
    let home = std::env::home_dir().filter(|home| home.is_absolute());
    let home = home.context("AGENTJAIL_STATE_DIR (--state-dir): needed where there is no home")?;
    Ok(home.join(".local/state/agentjail"))
}

fn providers(flags: &Flags) -> anyhow::Result<Providers> {
    let mut providers = Providers::default();
    for text in &flags.provider {
        let provider = Provider::custom(text).context("--provider")?;
        providers.add(provider).context("--provider")?;
    }
    let named = [
        ("openai", "AGENTJAIL_UPSTREAM_OPENAI", &flags.upstream_openai),
        ("anthropic", "AGENTJAIL_UPSTREAM_ANTHROPIC", &flags.upstream_anthropic),
        ("github", "AGENTJAIL_UPSTREAM_GITHUB", &flags.upstream_github),
        ("stripe", "AGENTJAIL_UPSTREAM_STRIPE", &flags.upstream_stripe),
    ];
    for (name, variable, url) in named {
        if let Some(url) = given(url.as_deref()) {
            providers.set_upstream(name, url).context(variable)?;
        }
    }
    for text in &flags.upstream {
        let (name, url) = text.split_once('=').context("--upstream: write NAME=URL")?;
        providers.set_upstream(name, url).context("--upstream")?;
    }
    Ok(providers)
}

fn seeds(flags: &Flags) -> Vec<(ids::ServiceId, Secret)> {
    let all = [
        ("openai", &flags.openai_api_key),
        ("anthropic", &flags.anthropic_api_key),
        ("github", &flags.github_token),
        ("stripe", &flags.stripe_api_key),
    ];
    all.into_iter()
        .filter_map(|(name, key)| Some((name.parse().ok()?, given(key.as_deref())?)))
        .map(|(service, key)| (service, Secret::new(key.to_owned())))
        .collect()
}

fn quotas(flags: &Flags) -> anyhow::Result<Quotas> {
    let optional = |name, value: &Option<String>| {
        given(value.as_deref()).map(|value| number::<u64>(name, value)).transpose()
    };
    let rate = "AGENTJAIL_QUOTA_REQUESTS_PER_SEC (--quota-requests-per-sec)";
    let rate = given(flags.quota_requests_per_sec.as_deref())
        .map(|value| number(rate, value))
        .transpose()?;
    let megabytes = optional("AGENTJAIL_QUOTA_MB (--quota-mb)", &flags.quota_mb)?;
    Ok(Quotas {
        jails: optional("AGENTJAIL_QUOTA_JAILS (--quota-jails)", &flags.quota_jails)?,
        agents: Some(number("AGENTJAIL_QUOTA_AGENTS (--quota-agents)", &flags.quota_agents)?),
        workspaces: optional(
            "AGENTJAIL_QUOTA_WORKSPACES (--quota-workspaces)",
            &flags.quota_workspaces,
        )?,
        sessions: optional("AGENTJAIL_QUOTA_SESSIONS (--quota-sessions)", &flags.quota_sessions)?,
        bytes: megabytes.map(|megabytes| megabytes.saturating_mul(1 << 20)),
        requests_per_second: rate,
    })
}

fn persistence(flags: &Flags) -> anyhow::Result<Persistence> {
    let optional = |name, value: &Option<String>| {
        given(value.as_deref()).map(|value| number(name, value)).transpose()
    };
    let age = "AGENTJAIL_SNAPSHOT_MAX_AGE_SECS (--snapshot-max-age-secs)";
    let count = "AGENTJAIL_SNAPSHOT_MAX_COUNT (--snapshot-max-count)";
    let tick = "AGENTJAIL_SNAPSHOT_GC_TICK_SECS (--snapshot-gc-tick-secs)";
    let idle = "AGENTJAIL_IDLE_CHECK_INTERVAL_SECS (--idle-check-interval-secs)";
    Ok(Persistence {
        idle_check_secs: number(idle, &flags.idle_check_interval_secs)?,
        snapshots: SnapshotRetention {
            max_age_secs: optional(age, &flags.snapshot_max_age_secs)?,
            max_count: optional(count, &flags.snapshot_max_count)?,
            tick_secs: number(tick, &flags.snapshot_gc_tick_secs)?,
        },
    })
}

/// What is documented and not served yet must not look as if it were.
fn refuse_unserved(flags: &Flags) -> anyhow::Result<()> {
    if given(flags.database_url.as_deref()).is_some() {
        bail!("DATABASE_URL: PostgreSQL is not part of this version; unset it");
    }
    if given(flags.clone_mode.as_deref()).is_some_and(|mode| !mode.eq_ignore_ascii_case("jail")) {
        bail!("AGENTJAIL_CLONE_MODE: the only mode is `jail`");
    }
    Ok(())
}

fn given(value: Option<&str>) -> Option<&str> {
    value.map(str::trim).filter(|value| !value.is_empty())
}

fn address(name: &str, text: &str) -> anyhow::Result<SocketAddr> {
    text.trim().parse().with_context(|| format!("{name}: {text:?} is not ADDRESS:PORT"))
}

fn number<T: std::str::FromStr<Err = std::num::ParseIntError>>(
    name: &str,
    text: &str,
) -> anyhow::Result<T> {
    let parsed = text.trim().parse();
    parsed.with_context(|| format!("{name}: {text:?} is not a whole number that can be used here"))
}

fn seconds(name: &str, text: &str) -> anyhow::Result<Duration> {
    Ok(Duration::from_secs(number::<u32>(name, text)?.into()))
}

/// Reads `HOST=IP` entries.
pub(crate) fn resolutions(entries: &[String]) -> anyhow::Result<HashMap<HostName, Vec<IpAddr>>> {
    let mut resolve: HashMap<HostName, Vec<IpAddr>> = HashMap::new();
    for entry in entries {
        let (host, address) =
            entry.split_once('=').with_context(|| format!("{entry:?} is not HOST=IP"))?;
        let host = HostName::parse(host).with_context(|| format!("{entry:?}"))?;
        let address =
            address.parse().with_context(|| format!("{entry:?} does not end in an address"))?;
        resolve.entry(host).or_default().push(address);
    }
    Ok(resolve)
}

/// Reads networks, or single addresses.
pub(crate) fn networks(entries: &[String]) -> anyhow::Result<Vec<IpNet>> {
    let read = |entry: &String| {
        let network = entry
            .parse()
            .or_else(|error| entry.parse::<IpAddr>().map(IpNet::from).map_err(|_| error));
        network.with_context(|| format!("{entry:?} is not a network such as 10.0.0.0/8"))
    };
    entries.iter().map(read).collect()
}
