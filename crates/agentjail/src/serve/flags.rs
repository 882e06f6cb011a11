//! The flags of `agentjail serve`, each with the variable that says the same.

use clap::Args;
use clap::builder::BoolishValueParser;

/// What was typed, or stands in the environment. A blank value counts as none.
#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// Where the API listens
    #[arg(long, env = "CTL_ADDR", default_value = "127.0.0.1:7000", value_name = "ADDR")]
    pub(super) ctl_addr: String,
    /// Where the phantom proxy listens
    #[arg(long, env = "PROXY_ADDR", default_value = "127.0.0.1:8443", value_name = "ADDR")]
    pub(super) proxy_addr: String,
    /// What sandboxes are told: `http://HOST[:PORT]` or `https://HOST[:PORT]` (default: `http://<PROXY_ADDR>`)
    #[arg(long, env = "PROXY_BASE_URL", value_name = "URL")]
    pub(super) proxy_base_url: Option<String>,
    /// Comma-separated `token@tenant:role`, the role `admin` or `operator` [default: one admin key,
    /// made at first start]
    #[arg(long, env = "AGENTJAIL_API_KEY", hide_env_values = true, value_name = "KEYS")]
    pub(super) api_key: Option<String>,
    /// Let everyone in, as an admin of tenant `dev`; only with loopback addresses
    #[arg(long)]
    pub(super) insecure_no_auth: bool,
    /// Database, keys and flavors [default: /var/lib/agentjail for root, else ~/.local/state/agentjail]
    #[arg(long, env = "AGENTJAIL_STATE_DIR", value_name = "DIR")]
    pub(super) state_dir: Option<String>,
    /// Send a provider's requests elsewhere, for instance `openai=https://gateway.example.com`; repeatable
    #[arg(long, value_name = "NAME=URL")]
    pub(super) upstream: Vec<String>,
    /// Upstream of the provider `openai`
    #[arg(long, env = "AGENTJAIL_UPSTREAM_OPENAI", value_name = "URL")]
    pub(super) upstream_openai: Option<String>,
    /// Upstream of the provider `anthropic`
    #[arg(long, env = "AGENTJAIL_UPSTREAM_ANTHROPIC", value_name = "URL")]
    pub(super) upstream_anthropic: Option<String>,
    /// Upstream of the provider `github`
    #[arg(long, env = "AGENTJAIL_UPSTREAM_GITHUB", value_name = "URL")]
    pub(super) upstream_github: Option<String>,
    /// Upstream of the provider `stripe`
    #[arg(long, env = "AGENTJAIL_UPSTREAM_STRIPE", value_name = "URL")]
    pub(super) upstream_stripe: Option<String>,
    /// A provider of your own: `NAME=URL,INJECTION` with INJECTION `bearer`, `header:NAME` or
    /// `basic:USER`; repeatable
    #[arg(long, value_name = "PROVIDER")]
    pub(super) provider: Vec<String>,
    /// Real key that becomes a credential of tenant `dev`
    #[arg(long, env = "OPENAI_API_KEY", hide_env_values = true, value_name = "KEY", hide = true)]
    pub(super) openai_api_key: Option<String>,
    /// Real key that becomes a credential of tenant `dev`
    #[arg(
        long,
        env = "ANTHROPIC_API_KEY",
        hide_env_values = true,
        value_name = "KEY",
        hide = true
    )]
    pub(super) anthropic_api_key: Option<String>,
    /// Real key that becomes a credential of tenant `dev`
    #[arg(long, env = "GITHUB_TOKEN", hide_env_values = true, value_name = "KEY", hide = true)]
    pub(super) github_token: Option<String>,
    /// Real key that becomes a credential of tenant `dev`
    #[arg(long, env = "STRIPE_API_KEY", hide_env_values = true, value_name = "KEY", hide = true)]
    pub(super) stripe_api_key: Option<String>,
    /// Commands running at once
    #[arg(long, env = "AGENTJAIL_MAX_CONCURRENT", default_value = "16", value_name = "N")]
    pub(super) max_concurrent: String,
    /// Coding agents living in workspaces at once, paused ones included
    #[arg(long, env = "AGENTJAIL_MAX_AGENTS", default_value = "32", value_name = "N")]
    pub(super) max_agents: String,
    /// Bytes of each output stream that a result carries
    #[arg(long, env = "AGENTJAIL_OUTPUT_LIMIT_BYTES", default_value = "1048576", value_name = "N")]
    pub(super) output_limit_bytes: String,
    /// How long an upstream may be silent in the middle of an exchange
    #[arg(
        long,
        env = "AGENTJAIL_UPSTREAM_SILENCE_SECS",
        default_value = "600",
        value_name = "SECS"
    )]
    pub(super) upstream_silence_secs: String,
    /// Host user and group that the first tenant's jails run as when the server is root; the others
    /// follow
    #[arg(long, env = "AGENTJAIL_HOST_ID", value_name = "ID")]
    pub(super) host_id: Option<String>,
    /// Blank jails kept ready, so that a start has less to do; 0 keeps none
    #[arg(long, env = "AGENTJAIL_WARM_JAILS", default_value = "16", value_name = "N")]
    pub(super) warm_jails: String,
    /// Memory, in MiB, below which no jails are kept ready
    #[arg(long, env = "AGENTJAIL_WARM_RESERVE_MB", default_value = "512", value_name = "N")]
    pub(super) warm_reserve_mb: String,
    /// Run jails even if a limit cannot be had on this machine; each result and ledger row says what
    /// was in force
    #[arg(long, env = "AGENTJAIL_BEST_EFFORT", value_parser = BoolishValueParser::new())]
    pub(super) best_effort: bool,
    /// Private network that jails with an allowlist may dial; repeatable
    #[arg(long, value_name = "CIDR")]
    pub(super) egress_allow_private: Vec<String>,
    /// Address of a name for the egress of jails, without a look-up; repeatable
    #[arg(long, value_name = "HOST=IP")]
    pub(super) egress_resolve: Vec<String>,
    /// Web origin that may call the API from a browser; repeatable
    #[arg(long, value_name = "ORIGIN")]
    pub(super) cors_origin: Vec<String>,
    /// A PostgreSQL database, which is not served yet
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL", hide = true)]
    pub(super) database_url: Option<String>,
    /// Where the gateway listens: it sends requests to workspaces by their host name
    #[arg(long, env = "AGENTJAIL_GATEWAY_ADDR", value_name = "ADDR")]
    pub(super) gateway_addr: Option<String>,
    /// Private network that the gateway may dial as a backend; repeatable
    #[arg(long, value_name = "CIDR")]
    pub(super) gateway_allow_private: Vec<String>,
    /// Where contents of snapshots are kept by their hash [default: in the state directory]
    #[arg(long, env = "AGENTJAIL_SNAPSHOT_POOL_DIR", value_name = "DIR")]
    pub(super) snapshot_pool_dir: Option<String>,
    /// PEM file of certificate authorities that clones trust, instead of the machine's
    #[arg(long, env = "AGENTJAIL_GIT_CA", value_name = "FILE")]
    pub(super) git_ca: Option<String>,
    /// Commands that one tenant may have running at once
    #[arg(long, env = "AGENTJAIL_QUOTA_JAILS", value_name = "N")]
    pub(super) quota_jails: Option<String>,
    /// Coding agents that one tenant may have living at once
    #[arg(long, env = "AGENTJAIL_QUOTA_AGENTS", default_value = "16", value_name = "N")]
    pub(super) quota_agents: String,
    /// Workspaces that one tenant may have
    #[arg(long, env = "AGENTJAIL_QUOTA_WORKSPACES", value_name = "N")]
    pub(super) quota_workspaces: Option<String>,
    /// Sessions that one tenant may have
    #[arg(long, env = "AGENTJAIL_QUOTA_SESSIONS", value_name = "N")]
    pub(super) quota_sessions: Option<String>,
    /// Mebibytes that the workspaces and snapshots of one tenant may take
    #[arg(long, env = "AGENTJAIL_QUOTA_MB", value_name = "N")]
    pub(super) quota_mb: Option<String>,
    /// API requests a second that one tenant may make, on average
    #[arg(long, env = "AGENTJAIL_QUOTA_REQUESTS_PER_SEC", value_name = "N")]
    pub(super) quota_requests_per_sec: Option<String>,
    /// `jail` is the only mode there is
    #[arg(long, env = "AGENTJAIL_CLONE_MODE", value_name = "MODE", hide = true)]
    pub(super) clone_mode: Option<String>,
    /// How often idle workspaces are looked for; 0 is never
    #[arg(
        long,
        env = "AGENTJAIL_IDLE_CHECK_INTERVAL_SECS",
        default_value = "30",
        value_name = "SECS"
    )]
    pub(super) idle_check_interval_secs: String,
    /// Age at which snapshots are removed
    #[arg(long, env = "AGENTJAIL_SNAPSHOT_MAX_AGE_SECS", value_name = "SECS")]
    pub(super) snapshot_max_age_secs: Option<String>,
    /// Number of snapshots that are kept
    #[arg(long, env = "AGENTJAIL_SNAPSHOT_MAX_COUNT", value_name = "N")]
    pub(super) snapshot_max_count: Option<String>,
    /// How often snapshots are looked through
    #[arg(
        long,
        env = "AGENTJAIL_SNAPSHOT_GC_TICK_SECS",
        default_value = "60",
        value_name = "SECS"
    )]
    pub(super) snapshot_gc_tick_secs: String,
    /// How long requests in flight may take after a signal to stop
    #[arg(long, env = "AGENTJAIL_GRACE_SECS", default_value = "5", value_name = "SECS")]
    pub(super) grace_secs: String,
    /// `text` or `json`
    #[arg(long, env = "LOG_FORMAT", default_value = "text", value_name = "FORMAT")]
    pub(super) log_format: String,
    /// Log filter, such as `info` or `agentjail=debug,phantom=trace`
    #[arg(long, env = "RUST_LOG", default_value = "info", value_name = "FILTER")]
    pub(super) log: String,
}
