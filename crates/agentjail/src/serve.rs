//! `agentjail serve`: from flags and environment to a checked configuration.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use control::{ApiKeys, BaseUrl, Config, ExecConfig, Persistence, SnapshotRetention, StateDir};
use egress::{Dialler, HostName};
use ipnet::IpNet;
use jail::Engine;
use phantom::{Provider, Providers};
use secret::Secret;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// What was typed, or stands in the environment. A blank value counts as none.
#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// Where the API listens
    #[arg(long, env = "CTL_ADDR", default_value = "127.0.0.1:7000", value_name = "ADDR")]
    ctl_addr: String,
    /// Where the phantom proxy listens
    #[arg(long, env = "PROXY_ADDR", default_value = "127.0.0.1:8443", value_name = "ADDR")]
    proxy_addr: String,
    /// What sandboxes are told: `http://HOST[:PORT]` or `https://HOST[:PORT]` (default: `http://<PROXY_ADDR>`)
    #[arg(long, env = "PROXY_BASE_URL", value_name = "URL")]
    proxy_base_url: Option<String>,
    /// Comma-separated `token@tenant:role`, the role `admin` or `operator` [default: one admin key,
    /// made at first start]
    #[arg(long, env = "AGENTJAIL_API_KEY", hide_env_values = true, value_name = "KEYS")]
    api_key: Option<String>,
    /// Let everyone in, as an admin of tenant `dev`; only with loopback addresses
    #[arg(long)]
    insecure_no_auth: bool,
    /// Database, keys and flavors [default: /var/lib/agentjail for root, else ~/.local/state/agentjail]
    #[arg(long, env = "AGENTJAIL_STATE_DIR", value_name = "DIR")]
    state_dir: Option<String>,
    /// Send a provider's requests elsewhere, for instance `openai=https://gateway.example.com`; repeatable
    #[arg(long, value_name = "NAME=URL")]
    upstream: Vec<String>,
    /// Upstream of the provider `openai`
    #[arg(long, env = "AGENTJAIL_UPSTREAM_OPENAI", value_name = "URL")]
    upstream_openai: Option<String>,
    /// Upstream of the provider `anthropic`
    #[arg(long, env = "AGENTJAIL_UPSTREAM_ANTHROPIC", value_name = "URL")]
    upstream_anthropic: Option<String>,
    /// Upstream of the provider `github`
    #[arg(long, env = "AGENTJAIL_UPSTREAM_GITHUB", value_name = "URL")]
    upstream_github: Option<String>,
    /// Upstream of the provider `stripe`
    #[arg(long, env = "AGENTJAIL_UPSTREAM_STRIPE", value_name = "URL")]
    upstream_stripe: Option<String>,
    /// A provider of your own: `NAME=URL,INJECTION` with INJECTION `bearer`, `header:NAME` or
    /// `basic:USER`; repeatable
    #[arg(long, value_name = "PROVIDER")]
    provider: Vec<String>,
    /// Real key that becomes a credential of tenant `dev`
    #[arg(long, env = "OPENAI_API_KEY", hide_env_values = true, value_name = "KEY", hide = true)]
    openai_api_key: Option<String>,
    /// Real key that becomes a credential of tenant `dev`
    #[arg(
        long,
        env = "ANTHROPIC_API_KEY",
        hide_env_values = true,
        value_name = "KEY",
        hide = true
    )]
    anthropic_api_key: Option<String>,
    /// Real key that becomes a credential of tenant `dev`
    #[arg(long, env = "GITHUB_TOKEN", hide_env_values = true, value_name = "KEY", hide = true)]
    github_token: Option<String>,
    /// Real key that becomes a credential of tenant `dev`
    #[arg(long, env = "STRIPE_API_KEY", hide_env_values = true, value_name = "KEY", hide = true)]
    stripe_api_key: Option<String>,
    /// Commands running at once
    #[arg(long, env = "AGENTJAIL_MAX_CONCURRENT", default_value = "16", value_name = "N")]
    max_concurrent: String,
    /// Bytes of each output stream that a result carries
    #[arg(long, env = "AGENTJAIL_OUTPUT_LIMIT_BYTES", default_value = "1048576", value_name = "N")]
    output_limit_bytes: String,
    /// How long an upstream may be silent in the middle of an exchange
    #[arg(
        long,
        env = "AGENTJAIL_UPSTREAM_SILENCE_SECS",
        default_value = "600",
        value_name = "SECS"
    )]
    upstream_silence_secs: String,
    /// Host user and group that the first tenant's jails run as when the server is root; the others
    /// follow
    #[arg(long, env = "AGENTJAIL_HOST_ID", value_name = "ID")]
    host_id: Option<String>,
    /// Blank jails kept ready, so that a start has less to do; 0 keeps none
    #[arg(long, env = "AGENTJAIL_WARM_JAILS", default_value = "16", value_name = "N")]
    warm_jails: String,
    /// Memory, in MiB, below which no jails are kept ready
    #[arg(long, env = "AGENTJAIL_WARM_RESERVE_MB", default_value = "512", value_name = "N")]
    warm_reserve_mb: String,
    /// Run jails even if a limit cannot be had on this machine; each result and ledger row says what
    /// was in force
    #[arg(long, env = "AGENTJAIL_BEST_EFFORT")]
    best_effort: bool,
    /// Private network that jails with an allowlist may dial; repeatable
    #[arg(long, value_name = "CIDR")]
    egress_allow_private: Vec<String>,
    /// Address of a name for the egress of jails, without a look-up; repeatable
    #[arg(long, value_name = "HOST=IP")]
    egress_resolve: Vec<String>,
    /// Web origin that may call the API from a browser; repeatable
    #[arg(long, value_name = "ORIGIN")]
    cors_origin: Vec<String>,
    /// A PostgreSQL database, which is not served yet
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL", hide = true)]
    database_url: Option<String>,
    /// A gateway by host name, which is not served yet
    #[arg(long, env = "AGENTJAIL_GATEWAY_ADDR", value_name = "ADDR", hide = true)]
    gateway_addr: Option<String>,
    /// Where snapshots' objects are, which are not served yet
    #[arg(long, env = "AGENTJAIL_SNAPSHOT_POOL_DIR", value_name = "DIR", hide = true)]
    snapshot_pool_dir: Option<String>,
    /// `jail` is the only mode there is
    #[arg(long, env = "AGENTJAIL_CLONE_MODE", value_name = "MODE", hide = true)]
    clone_mode: Option<String>,
    /// How often idle workspaces are looked for; 0 is never
    #[arg(
        long,
        env = "AGENTJAIL_IDLE_CHECK_INTERVAL_SECS",
        default_value = "30",
        value_name = "SECS"
    )]
    idle_check_interval_secs: String,
    /// Age at which snapshots are removed
    #[arg(long, env = "AGENTJAIL_SNAPSHOT_MAX_AGE_SECS", value_name = "SECS")]
    snapshot_max_age_secs: Option<String>,
    /// Number of snapshots that are kept
    #[arg(long, env = "AGENTJAIL_SNAPSHOT_MAX_COUNT", value_name = "N")]
    snapshot_max_count: Option<String>,
    /// How often snapshots are looked through
    #[arg(
        long,
        env = "AGENTJAIL_SNAPSHOT_GC_TICK_SECS",
        default_value = "60",
        value_name = "SECS"
    )]
    snapshot_gc_tick_secs: String,
    /// How long requests in flight may take after a signal to stop
    #[arg(long, env = "AGENTJAIL_GRACE_SECS", default_value = "5", value_name = "SECS")]
    grace_secs: String,
    /// `text` or `json`
    #[arg(long, env = "LOG_FORMAT", default_value = "text", value_name = "FORMAT")]
    log_format: String,
    /// Log filter, such as `info` or `agentjail=debug,phantom=trace`
    #[arg(long, env = "RUST_LOG", default_value = "info", value_name = "FILTER")]
    log: String,
}

/// Each holds a few hundred KiB of the kernel's memory and two processes.
const MOST_WARM_JAILS: u32 = 1024;

pub(crate) fn serve(flags: Flags) -> anyhow::Result<ExitCode> {
    start_logging(&flags)?;
    raise_open_files();
    let (config, engine) = configure(flags)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let engine = Engine::start(engine).await.context("could not start the engine")?;
        forbid_core_dumps();
        let stop = CancellationToken::new();
        let signals = stop_on_signal(stop.clone())?;
        let served = control::serve(config, engine.clone(), stop).await;
        signals.abort();
        // Also when serving failed: nothing outlives its owner.
        engine.shutdown().await;
        served?;
        Ok(ExitCode::SUCCESS)
    })
}

/// Each connection of a jail is two descriptors here.
fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let most = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, most) {
        tracing::warn!(%error, "the limit of open files could not be raised");
    }
}

/// A core dump of this process would hold keys.
fn forbid_core_dumps() {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!(%error, "core dumps could not be forbidden");
    }
}

#[expect(clippy::disallowed_methods, reason = "aborted by the caller when serving has ended")]
fn stop_on_signal(stop: CancellationToken) -> anyhow::Result<tokio::task::JoinHandle<()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("asked to stop");
        stop.cancel();
        // Asked twice: at once.
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        std::process::exit(1);
    }))
}

fn start_logging(flags: &Flags) -> anyhow::Result<()> {
    let filter = if flags.log.trim().is_empty() { "info" } else { &flags.log };
    let filter = EnvFilter::try_new(filter).context("RUST_LOG (--log)")?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match flags.log_format.trim() {
        "text" | "" => {
            builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init();
        }
        "json" => builder.json().init(),
        other => bail!("LOG_FORMAT (--log-format): {other:?} is neither `text` nor `json`"),
    }
    Ok(())
}

fn configure(flags: Flags) -> anyhow::Result<(Config, jail::Config)> {
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
    let mut exec = ExecConfig {
        max_concurrent: number(
            "AGENTJAIL_MAX_CONCURRENT (--max-concurrent)",
            &flags.max_concurrent,
        )?,
        output_limit_bytes: number(
            "AGENTJAIL_OUTPUT_LIMIT_BYTES (--output-limit-bytes)",
            &flags.output_limit_bytes,
        )?,
        ..ExecConfig::default()
    };
    if exec.max_concurrent == 0 {
        bail!("AGENTJAIL_MAX_CONCURRENT (--max-concurrent): must be at least 1");
    }
    let mut engine = jail::Config::of_this_program()?;
    if let Some(id) = given(flags.host_id.as_deref()) {
        exec.first_host_id = number("AGENTJAIL_HOST_ID (--host-id)", id)?;
        if exec.first_host_id == 0 {
            bail!("AGENTJAIL_HOST_ID (--host-id): jails never run as the host's root");
        }
    }
    if flags.best_effort {
        exec.enforcement = jail::Enforcement::BestEffort;
    }
    let reserve: u64 =
        number("AGENTJAIL_WARM_RESERVE_MB (--warm-reserve-mb)", &flags.warm_reserve_mb)?;
    engine.pool = jail::Pool {
        size: number("AGENTJAIL_WARM_JAILS (--warm-jails)", &flags.warm_jails)?,
        reserve_bytes: reserve.saturating_mul(1 << 20),
    };
    if engine.pool.size > MOST_WARM_JAILS {
        bail!("AGENTJAIL_WARM_JAILS (--warm-jails): at most {MOST_WARM_JAILS}");
    }
    engine.hosts = control::network::hosts(&proxy_base_url);
    refuse_unserved(&flags)?;
    // From here on things are made, once nobody else uses the directory.
    let state = StateDir::open(state_dir(&flags)?)?;
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
        proxy_base_url,
        providers,
        seeds,
        exec,
        dialler,
        cors_origins: flags.cors_origin.clone(),
    };
    let keys = keys(&flags, &config)?;
    Ok((Config { keys, ..config }, engine))
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

fn state_dir(flags: &Flags) -> anyhow::Result<PathBuf> {
    if let Some(directory) = given(flags.state_dir.as_deref()) {
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
    let unserved = [
        ("DATABASE_URL", &flags.database_url, "PostgreSQL"),
        ("AGENTJAIL_GATEWAY_ADDR", &flags.gateway_addr, "the gateway"),
        ("AGENTJAIL_SNAPSHOT_POOL_DIR", &flags.snapshot_pool_dir, "the snapshot pool"),
    ];
    for (name, value, what) in unserved {
        if given(value.as_deref()).is_some() {
            bail!("{name}: {what} is not part of this version; unset it");
        }
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

fn number<T: std::str::FromStr>(name: &str, text: &str) -> anyhow::Result<T> {
    text.trim().parse().ok().with_context(|| format!("{name}: {text:?} is not a number in range"))
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
