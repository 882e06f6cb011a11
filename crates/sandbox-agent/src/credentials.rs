//! `sandbox-agent credentials`: what can be found of credentials on this machine.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use agent::{Credential, Credentials, find_credentials};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Map, Value, json};

use crate::place;

/// Look for credentials of coding agents
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Tell which there are; not what they are, unless --reveal says so
    Extract(ExtractFlags),
    /// Print them as lines for a shell
    ExtractEnv(EnvFlags),
}

#[derive(Debug, Args)]
pub(crate) struct ExtractFlags {
    /// Only those that this agent uses
    #[arg(short, long, value_enum)]
    agent: Option<Agent>,
    /// Only those of this provider
    #[arg(short, long, value_name = "PROVIDER")]
    provider: Option<String>,
    /// Look here instead of at home
    #[arg(short = 'd', long, value_name = "DIR")]
    home_dir: Option<PathBuf>,
    /// Only keys, no tokens of people
    #[arg(long)]
    no_oauth: bool,
    /// Print them in clear
    #[arg(short, long)]
    reveal: bool,
}

#[derive(Debug, Args)]
pub(crate) struct EnvFlags {
    /// With `export` before each
    #[arg(short, long)]
    export: bool,
    /// Look here instead of at home
    #[arg(short = 'd', long, value_name = "DIR")]
    home_dir: Option<PathBuf>,
    /// Only keys, no tokens of people
    #[arg(long)]
    no_oauth: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Agent {
    Claude,
    Codex,
    Opencode,
    Amp,
}

impl Agent {
    fn uses(self, provider: &str) -> bool {
        match self {
            Self::Claude | Self::Amp => provider == "anthropic",
            Self::Codex => provider == "openai",
            Self::Opencode => ["anthropic", "openai"].contains(&provider),
        }
    }
}

pub(crate) fn credentials(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Extract(flags) => extract(flags)?,
        Command::ExtractEnv(flags) => extract_env(&flags)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn found(home: Option<PathBuf>, oauth: bool) -> Credentials {
    let environment = place::environment();
    let home = home.unwrap_or_else(|| place::home(&environment));
    find_credentials(&home, &environment, oauth)
}

fn extract(flags: ExtractFlags) -> anyhow::Result<()> {
    let mut all = found(flags.home_dir, !flags.no_oauth);
    all.retain(|provider, _| flags.agent.is_none_or(|agent| agent.uses(provider)));
    all.retain(|provider, _| flags.provider.as_ref().is_none_or(|wanted| wanted == provider));
    let told = |provider: &str, credential: &Credential| {
        let mut told = json!({
            "provider": provider,
            "source": credential.source,
            "auth_type": credential.kind,
            "redacted": credential.redacted(),
        });
        told["api_key"] = if flags.reveal { credential.reveal().into() } else { Value::Null };
        told
    };
    let one = |provider: &str| {
        all.get(provider).map_or(Value::Null, |credential| told(provider, credential))
    };
    let other: Map<String, Value> = all
        .iter()
        .filter(|(provider, _)| !["anthropic", "openai"].contains(&provider.as_str()))
        .map(|(provider, credential)| (provider.clone(), told(provider, credential)))
        .collect();
    place::print(&json!({ "anthropic": one("anthropic"), "openai": one("openai"), "other": other }))
}

fn extract_env(flags: &EnvFlags) -> anyhow::Result<()> {
    let prefix = if flags.export { "export " } else { "" };
    let mut text = String::new();
    for (provider, credential) in found(flags.home_dir.clone(), !flags.no_oauth) {
        let names: &[&str] = match provider.as_str() {
            "anthropic" if credential.kind == "oauth" => &["CLAUDE_CODE_OAUTH_TOKEN"],
            "anthropic" => &["ANTHROPIC_API_KEY", "CLAUDE_API_KEY"],
            "openai" => &["OPENAI_API_KEY", "CODEX_API_KEY"],
            _ => &[],
        };
        let own = format!("{}_API_KEY", provider.to_uppercase().replace('-', "_"));
        let names = if names.is_empty() { vec![own.as_str()] } else { names.to_vec() };
        for name in names {
            // Quoted: whatever is in it, a shell reads it back as it is.
            let value = credential.reveal().replace('\'', "'\\''");
            let _ = writeln!(text, "{prefix}{name}='{value}'");
        }
    }
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(())
}
