//! `sandbox-agent server`: what was typed becomes a configuration, and the server runs.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write as _;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use agent::{AgentLimits, Config, Cors, Environment, Token};
use anyhow::{Context as _, bail};
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::{keeper, logs, place};

/// Who may ask.
#[derive(Debug, Clone, Args)]
pub(crate) struct Access {
    /// The token that opens the API. On a command line everybody on the machine can read it: better give
    /// --token-file or the environment variable
    #[arg(
        short,
        long,
        global = true,
        env = "SANDBOX_AGENT_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN"
    )]
    pub(crate) token: Option<String>,
    /// A file with the token in it
    #[arg(long, global = true, env = "SANDBOX_AGENT_TOKEN_FILE", value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Let everybody in
    #[arg(short, long, global = true)]
    pub(crate) no_token: bool,
}

/// What was typed, or stands in the environment.
#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// Where to listen
    #[arg(short = 'H', long, default_value = "127.0.0.1", value_name = "HOST")]
    host: String,
    /// Where to listen; 0 takes a free port
    #[arg(short, long, default_value_t = 2468, value_name = "PORT")]
    port: u16,
    /// Every path lies below this directory
    #[arg(long, env = "SANDBOX_AGENT_ROOT", default_value = "/", value_name = "DIR")]
    root: PathBuf,
    /// Sessions and their events [default: by port, below the data directory]
    #[arg(long, env = "SANDBOX_AGENT_STATE_DIR", value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// A name of this server, beside addresses and localhost; `*` takes all; repeatable
    #[arg(long, value_name = "HOST")]
    allow_host: Vec<String>,
    /// An origin whose pages may call; `*` allows all; repeatable
    #[arg(short = 'O', long, value_name = "ORIGIN")]
    cors_allow_origin: Vec<String>,
    /// A method that they may use; repeatable [default: all]
    #[arg(short = 'M', long, value_name = "METHOD")]
    cors_allow_method: Vec<String>,
    /// A header that they may send; repeatable [default: all]
    #[arg(short = 'A', long, value_name = "HEADER")]
    cors_allow_header: Vec<String>,
    /// They may send credentials
    #[arg(short = 'C', long)]
    cors_allow_credentials: bool,
    /// There is none; taken so that scripts need not change
    #[arg(long)]
    no_telemetry: bool,
    /// Declare a variable for processes and agents; repeatable
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Hand a variable of this server's environment on to processes and agents; repeatable
    #[arg(long, value_name = "NAME")]
    pass_env: Vec<String>,
    /// A file of NAME=VALUE lines, each declared as with --env
    #[arg(long, env = "SANDBOX_AGENT_ENV_FILE", value_name = "FILE")]
    env_file: Option<PathBuf>,
    /// Fail if processes could signal or trace this server
    #[arg(long)]
    shield: bool,
    /// Agent processes at once
    #[arg(long, env = "SANDBOX_AGENT_MAX_AGENTS", default_value_t = 32, value_name = "N")]
    max_agents: usize,
    /// End an agent that nobody asks and nobody listens to after this; 0 never does
    #[arg(long, env = "SANDBOX_AGENT_IDLE_SECS", default_value_t = 1800, value_name = "SECS")]
    agent_idle_secs: u64,
    /// How long a method of an agent may take; prompts may take as long as they do
    #[arg(
        long,
        env = "SANDBOX_AGENT_ACP_REQUEST_TIMEOUT_MS",
        default_value_t = 120_000,
        value_name = "MS"
    )]
    acp_request_timeout_ms: u64,
    /// Install no agent because somebody asks for it
    #[arg(long, env = "SANDBOX_AGENT_REQUIRE_PREINSTALL", value_parser = clap::builder::FalseyValueParser::new())]
    require_preinstall: bool,
    /// Take npm packages from here
    #[arg(long, env = "SANDBOX_AGENT_NPM_REGISTRY", value_name = "URL")]
    npm_registry: Option<String>,
    /// Log filter, such as `info` or `debug`
    #[arg(long, env = "RUST_LOG", default_value = "info", value_name = "FILTER")]
    log: String,
    /// Log into files of this directory instead of the terminal
    #[arg(long, env = "SANDBOX_AGENT_LOG_DIR", value_name = "DIR")]
    log_dir: Option<PathBuf>,
    /// How long requests in flight may take after a signal to stop
    #[arg(long, default_value_t = 5, value_name = "SECS")]
    grace_secs: u64,
}

/// Variables of the server's own environment that every process may see.
const BASE: [&str; 13] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LANGUAGE",
    "TZ",
    "TMPDIR",
    "TERM",
    "HOSTNAME",
    "XDG_RUNTIME_DIR",
    "LD_LIBRARY_PATH",
];

/// And those whose names begin so.
const BASE_PREFIXES: [&str; 1] = ["LC_"];

pub(crate) fn server(access: Access, flags: Flags) -> anyhow::Result<ExitCode> {
    if let Some(token) = &access.token {
        hide(token)?;
    }
    let (filter, log_dir) = (flags.log.clone(), flags.log_dir.clone());
    let (mut config, made) = configure(access, flags)?;
    match keeper::split()? {
        keeper::Side::Ended(code) => {
            agent::sweep_partial_files(&config.scratch());
            return Ok(code);
        }
        keeper::Side::Server(keeper) => config.keeper = Some(keeper),
    }
    logs::begin(&filter, log_dir.as_deref())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let served = runtime.block_on(serve(config, made));
    // Threads that block on a dead disk must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    served.map(|()| ExitCode::SUCCESS)
}

/// A token on the command line can be read by all who run here. So this program starts itself again without it: an
/// environment is for its owner alone, and soon not even for what he runs beside us.
fn hide(token: &str) -> anyhow::Result<()> {
    let all: Vec<OsString> = std::env::args_os().collect();
    let kept = without(&all, token);
    if kept.len() == all.len() {
        return Ok(());
    }
    #[expect(clippy::disallowed_methods, reason = "this program, in its own place")]
    let mut command = std::process::Command::new("/proc/self/exe");
    let program = kept.first().cloned().unwrap_or_default();
    command.arg0(program).args(kept.iter().skip(1)).env("SANDBOX_AGENT_TOKEN", token);
    // It comes back only if it failed.
    Err(command.exec()).context("could not start again without the token on the command line")
}

/// Arguments without those that give a token.
fn without(all: &[OsString], token: &str) -> Vec<OsString> {
    let mut kept = Vec::with_capacity(all.len());
    let mut rest = all.iter().peekable();
    while let Some(argument) = rest.next() {
        let text = argument.to_string_lossy();
        let apart = text == "--token" || text == "-t";
        if apart && rest.peek().is_some_and(|next| *next == token) {
            rest.next();
        } else if text != format!("--token={token}")
            && text != format!("-t{token}")
            && text != format!("-t={token}")
        {
            kept.push(argument.clone());
        }
    }
    kept
}

async fn serve(config: Config, made: Option<Token>) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let stopper = stop.clone();
    let signals = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hang_up.recv() => {}
        }
        stopper.cancel();
        // A second one means: at once.
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let serving = agent::serve(config, stop, |address| announce(address, made.as_ref()));
    tokio::select! {
        served = serving => Ok(served?),
        () = signals => bail!("stopped without waiting for requests in flight"),
    }
}

/// Tells where the server is, and the token if nobody else knows it. The only time it is told.
fn announce(address: SocketAddr, made: Option<&Token>) {
    tracing::info!("listening on http://{address}, inspector at http://{address}/ui/");
    if let Some(token) = made {
        // Not through the log, which may be kept.
        let text = format!(
            "No token was given; this one was made:\n  {}\nInspector: http://{address}/ui/#token={}\n",
            token.reveal(),
            token.reveal()
        );
        drop(std::io::stderr().write_all(text.as_bytes()));
    }
}

fn configure(access: Access, flags: Flags) -> anyhow::Result<(Config, Option<Token>)> {
    let (token, made) = token(access)?;
    let own = place::environment();
    let (home, data) = (place::home(&own), place::data(&own));
    let mut mock = place::itself()?;
    mock.1.push("mock-agent-process".to_owned());
    let address = address(&flags.host, flags.port)?;
    let environment = environment(&flags, own)?;
    let config = Config {
        address,
        token,
        root: flags.root,
        home,
        data,
        state: flags.state_dir,
        cors: Cors {
            origins: flags.cors_allow_origin,
            methods: parse("--cors-allow-method", &flags.cors_allow_method)?,
            headers: parse("--cors-allow-header", &flags.cors_allow_header)?,
            credentials: flags.cors_allow_credentials,
        },
        hosts: flags.allow_host,
        environment,
        agents: AgentLimits {
            most: flags.max_agents.max(1),
            idle: (flags.agent_idle_secs > 0).then(|| Duration::from_secs(flags.agent_idle_secs)),
            request_timeout: Duration::from_millis(flags.acp_request_timeout_ms.max(1)),
            preinstalled_only: flags.require_preinstall,
            npm: flags.npm_registry,
        },
        shield: flags.shield,
        keeper: None,
        mock,
        grace: Duration::from_secs(flags.grace_secs),
    };
    Ok((config, made))
}

impl Access {
    /// The token that was given.
    pub(crate) fn token(self) -> anyhow::Result<Option<Token>> {
        let given = match (self.token, self.token_file) {
            (Some(_), Some(_)) => bail!("give --token or --token-file, not both"),
            (Some(token), None) => Some(token),
            (None, Some(file)) => {
                let text = std::fs::read_to_string(&file);
                Some(
                    text.with_context(|| format!("--token-file {}", file.display()))?
                        .trim()
                        .to_owned(),
                )
            }
            (None, None) => None,
        };
        match given {
            Some(text) => match Token::given(&text) {
                Some(token) => Ok(Some(token)),
                None => bail!("the token is empty; say --no-token to let everybody in"),
            },
            None => Ok(None),
        }
    }
}

/// The token in force, and the one that was made because none was given.
fn token(access: Access) -> anyhow::Result<(Option<Token>, Option<Token>)> {
    let open = access.no_token;
    match access.token()? {
        Some(token) => Ok((Some(token), None)),
        None if open => Ok((None, None)),
        None => {
            let made = Token::random()?;
            Ok((Some(made.clone()), Some(made)))
        }
    }
}

fn address(host: &str, port: u16) -> anyhow::Result<SocketAddr> {
    let name = host.trim_matches(['[', ']']);
    let mut found = (name, port).to_socket_addrs().with_context(|| format!("--host {host}"))?;
    found.next().with_context(|| format!("--host {host} has no address"))
}

fn parse<T: std::str::FromStr>(flag: &str, texts: &[String]) -> anyhow::Result<Vec<T>>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    let all = texts.iter().filter(|text| *text != "*");
    all.map(|text| text.parse().with_context(|| format!("{flag} {text}"))).collect()
}

fn environment(flags: &Flags, own: BTreeMap<String, String>) -> anyhow::Result<Environment> {
    let in_base = |name: &str| {
        BASE.contains(&name) || BASE_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
    };
    let mut base: BTreeMap<String, String> =
        own.iter().filter(|(name, _)| in_base(name)).map(|(n, v)| (n.clone(), v.clone())).collect();
    base.entry("PATH".to_owned()).or_insert_with(|| "/usr/local/bin:/usr/bin:/bin".to_owned());
    base.entry("LANG".to_owned()).or_insert_with(|| "C.UTF-8".to_owned());
    for name in &flags.pass_env {
        if let Some(value) = own.get(name) {
            base.insert(name.clone(), value.clone());
        }
    }
    if let Some(file) = &flags.env_file {
        for line in read_lines(file)? {
            declare(&mut base, "--env-file", &line)?;
        }
    }
    for line in &flags.env {
        declare(&mut base, "--env", line)?;
    }
    // The token is for this server alone.
    let server =
        own.into_iter().filter(|(name, _)| !name.starts_with("SANDBOX_AGENT_TOKEN")).collect();
    Ok(Environment { base, server })
}

fn read_lines(file: &Path) -> anyhow::Result<Vec<String>> {
    let text =
        std::fs::read_to_string(file).with_context(|| format!("--env-file {}", file.display()))?;
    let lines =
        text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(lines.map(|line| line.strip_prefix("export ").unwrap_or(line).to_owned()).collect())
}

fn declare(base: &mut BTreeMap<String, String>, flag: &str, line: &str) -> anyhow::Result<()> {
    match line.split_once('=') {
        Some((name, value)) if !name.is_empty() => {
            base.insert(name.to_owned(), value.to_owned());
            Ok(())
        }
        // The value may be a secret: it is not told.
        _ => bail!("{flag}: NAME=VALUE is expected"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_taken_off_the_command_line_however_it_was_given() {
        for given in [&["--token", "x y"][..], &["-t", "x y"], &["--token=x y"], &["-tx y"]] {
            let mut all: Vec<OsString> = vec!["program".into(), "server".into()];
            all.extend(given.iter().map(OsString::from));
            all.push("-p1".into());
            assert_eq!(without(&all, "x y"), ["program", "server", "-p1"], "{given:?}");
        }
    }
}
