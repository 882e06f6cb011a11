//! `agentjail run`: one command in a jail, as if it were run directly.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use control::network::{self, Mode, Plan};
use control::{NetworkUse, RefusedUse};
use egress::{Dialler, Policy, Rule, TrafficLimits};
use jail::{Access, Engine, Jail, Limits, Outcome, Pipes, Running, Start, Stdin, Tree};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::signal::unix::{SignalKind, signal};

use crate::terminal::TerminalFilter;

/// What was typed.
#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// What the command may reach [default: none, or allowlist with --allow]
    #[arg(long, value_enum, value_name = "MODE")]
    net: Option<Net>,
    /// A host it may reach, `*.` for all names below one; without a port, 80 and 443; repeatable
    #[arg(long, value_name = "HOST[:PORT]")]
    allow: Vec<String>,
    /// Connections open at once [default: 256]
    #[arg(long, requires = "allow", value_name = "N", value_parser = number_of_connections)]
    net_connections: Option<usize>,
    /// Connections opened in any second
    #[arg(long, requires = "allow", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    net_connections_per_sec: Option<u32>,
    /// Bytes a second, sent and received together
    #[arg(long, requires = "allow", value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    net_bytes_per_sec: Option<u64>,
    /// Bytes sent and received together, until connections are cut
    #[arg(long, requires = "allow", value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    net_bytes: Option<u64>,
    /// A private network that allowed names may lead to; repeatable
    #[arg(long, value_name = "CIDR")]
    allow_private: Vec<String>,
    /// Address of a name, without a look-up; repeatable
    #[arg(long, value_name = "HOST=IP")]
    resolve: Vec<String>,
    /// A directory to show at /workspace, where the command starts [default: an empty one]
    #[arg(long, value_name = "DIR")]
    workspace: Option<PathBuf>,
    /// Let the command write to the workspace
    #[arg(long)]
    rw: bool,
    /// A directory to show at /output, writable [default: one that is thrown away]
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// A variable for the command's environment, which is otherwise empty but for PATH, HOME and
    /// LANG; repeatable
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Memory, in MiB
    #[arg(long, default_value_t = 512, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    memory_mb: u64,
    /// Processor time, in percent of one CPU
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    cpu_percent: u32,
    /// Share of the processor beside other jails when it is scarce; 100 is the norm
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    cpu_weight: Option<u32>,
    /// Processor time of everything together, until all is killed
    #[arg(long, value_name = "SECS", value_parser = clap::value_parser!(u64).range(1..=604_800))]
    cpu_time: Option<u64>,
    /// Bytes a second, in MiB, to read from and to write to each disk
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    io_mb_per_sec: Option<u64>,
    /// Size of /tmp, in MiB
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    tmp_mb: u64,
    /// Processes and threads
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    max_pids: u32,
    /// Time until everything is killed
    #[arg(long, default_value_t = 300, value_name = "SECS", value_parser = clap::value_parser!(u64).range(1..=604_800))]
    timeout: u64,
    /// System calls: `strict` is `standard` without sockets
    #[arg(long, value_enum, default_value_t = Seccomp::Standard)]
    seccomp: Seccomp,
    /// Run even if a limit cannot be had here (said in the --json result)
    #[arg(long)]
    best_effort: bool,
    /// At the end, print the result as JSON, with the output in it
    #[arg(long)]
    json: bool,
    /// The command
    #[arg(trailing_var_arg = true, required = true, value_name = "CMD [ARGS]")]
    command: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Net {
    None,
    Loopback,
    Allowlist,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Seccomp {
    Standard,
    Strict,
}

/// Exit code for a timeout, as coreutils' `timeout` gives it.
pub(crate) const TIMED_OUT: u8 = 124;
/// Exit code when there was no jail to run the command in, as with `env` or `docker run`.
const NO_JAIL: u8 = 125;

/// Bytes of each stream that `--json` carries.
const JSON_LIMIT: usize = 1024 * 1024;

/// Signals that are passed to the command.
const FORWARDED: [SignalKind; 6] = [
    SignalKind::interrupt(),
    SignalKind::terminate(),
    SignalKind::hangup(),
    SignalKind::quit(),
    SignalKind::user_defined1(),
    SignalKind::user_defined2(),
];

const OPEN_FILES: u64 = 4096;
const TREE_BYTES: u64 = 1 << 30;

pub(crate) fn run(flags: Flags) -> anyhow::Result<ExitCode> {
    let plan = plan(&flags)?;
    let dialler = Dialler {
        resolve: crate::serve::resolutions(&flags.resolve).context("--resolve")?,
        allow_private: crate::serve::networks(&flags.allow_private).context("--allow-private")?,
    };
    let start = start(&flags, &plan)?;
    let limit = Duration::from_secs(flags.timeout);
    let json = flags.json;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let code = runtime.block_on(async {
        let engine = match Engine::start(jail::Config::of_this_program()?).await {
            Ok(engine) => engine,
            Err(error) => return Ok(no_jail(&error)),
        };
        let code = match engine.spawn(start).await {
            Ok(running) => attend(running, plan, &dialler, limit, json).await,
            Err(error) => Ok(no_jail(&error)),
        };
        engine.shutdown().await;
        code
    });
    // A read of our standard input may still be waiting in a thread; nobody waits for it.
    runtime.shutdown_background();
    code
}

fn no_jail(error: &(dyn std::error::Error + 'static)) -> ExitCode {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    eprintln!("agentjail: {text}");
    ExitCode::from(NO_JAIL)
}

fn plan(flags: &Flags) -> anyhow::Result<Plan> {
    let rules = flags
        .allow
        .iter()
        .map(|rule| rule.parse::<Rule>().with_context(|| format!("--allow {rule:?}")));
    let rules: Vec<Rule> = rules.collect::<anyhow::Result<_>>()?;
    let limits = TrafficLimits {
        connections: flags.net_connections,
        connections_per_second: flags.net_connections_per_sec,
        bytes_per_second: flags.net_bytes_per_sec,
        bytes: flags.net_bytes,
    };
    let mode = match (flags.net, rules.is_empty()) {
        (None | Some(Net::None), true) => Mode::None,
        (Some(Net::Loopback), true) => Mode::Loopback,
        (None | Some(Net::Allowlist), false) => Mode::Allowlist(Policy::new(rules), limits),
        (Some(Net::Allowlist), true) => bail!("--net allowlist needs at least one --allow"),
        (Some(Net::None | Net::Loopback), false) => {
            bail!("--allow contradicts --net none and --net loopback: leave out one")
        }
    };
    Ok(Plan::new(mode, None)?)
}

fn start(flags: &Flags, plan: &Plan) -> anyhow::Result<Start> {
    if flags.rw && flags.workspace.is_none() {
        bail!("--rw needs --workspace");
    }
    let access = if flags.rw { Access::ReadWrite } else { Access::ReadOnly };
    let (program, arguments) = flags.command.split_first().context("a command is needed")?;
    let mut jail = Jail::builder(program)
        .args(arguments)
        .stdin(Stdin::Piped)
        .workspace(tree("--workspace", flags.workspace.as_ref(), access)?)
        .output(tree("--output", flags.output.as_ref(), Access::ReadWrite)?)
        .network(plan.network().clone())
        .profile(match flags.seccomp {
            Seccomp::Standard => jail::Profile::Standard,
            Seccomp::Strict => jail::Profile::Strict,
        })
        .limits(Limits {
            memory_bytes: flags.memory_mb << 20,
            cpu_percent: flags.cpu_percent,
            pids: flags.max_pids,
            open_files: OPEN_FILES,
            tmp_bytes: flags.tmp_mb << 20,
            cpu_weight: flags.cpu_weight,
            io_bytes_per_second: flags.io_mb_per_sec.map(|rate| rate << 20),
        })
        .cpu_time(flags.cpu_time.map(Duration::from_secs));
    for entry in &flags.env {
        let (name, value) = entry
            .split_once('=')
            .filter(|(name, _)| !name.is_empty())
            .with_context(|| format!("--env {entry:?}: write NAME=VALUE"))?;
        jail = jail.env(name, value);
    }
    if flags.best_effort {
        jail = jail.best_effort();
    }
    Ok(jail.build())
}

fn tree(flag: &str, directory: Option<&PathBuf>, access: Access) -> anyhow::Result<Tree> {
    let Some(directory) = directory else {
        return Ok(Tree::Fresh { bytes: TREE_BYTES, access });
    };
    // A command that could write there may have put the link there.
    if directory.is_symlink() {
        bail!("{flag} {}: is a link; name the directory it leads to", directory.display());
    }
    let path =
        directory.canonicalize().with_context(|| format!("{flag} {}", directory.display()))?;
    if !path.is_dir() {
        bail!("{flag} {}: not a directory", directory.display());
    }
    Ok(Tree::Host { path, access })
}

/// Relays streams and signals until the command ends.
async fn attend(
    running: Running,
    plan: Plan,
    dialler: &Dialler,
    limit: Duration,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let Running { mut jail, pipes, listeners, enforced } = running;
    let Pipes { stdin, stdout, stderr } = pipes.context("a command has streams")?;
    let tasks = tokio_util::task::TaskTracker::new();
    let served = network::serve(plan, listeners, dialler, None, &tasks)?;
    let (orders, mut signals) = tokio::sync::mpsc::channel(16);
    for kind in FORWARDED {
        let mut incoming = signal(kind)?;
        let orders = orders.clone();
        tasks.spawn(async move {
            while incoming.recv().await.is_some() && orders.send(kind.as_raw_value()).await.is_ok()
            {
            }
        });
    }
    if let Some(stdin) = stdin {
        tasks.spawn(feed(stdin));
    }
    let out = pass(stdout, Target::Stdout, json);
    let err = pass(stderr, Target::Stderr, json);
    let mut output = std::pin::pin!(async { tokio::join!(out, err) });
    let mut ended_output = None;
    let outcome = loop {
        tokio::select! {
            outcome = jail.wait(limit) => break outcome,
            passed = output.as_mut(), if ended_output.is_none() => ended_output = Some(passed),
            Some(number) = signals.recv() => drop(jail.signal(number).await),
        }
    };
    let passed = match ended_output {
        Some(passed) => Some(passed),
        None => drain(output, &mut signals, outcome.timed_out).await,
    };
    let used = served.used();
    if !json {
        say_refused(used.as_ref());
    }
    if let Some((out, err)) = passed
        && json
    {
        print_json(&outcome, out, err, &enforced, used.as_ref())?;
    }
    Ok(exit_code(&outcome))
}

/// Waits for the rest of the output, at the pace of whoever reads ours; a signal ends the wait. After
/// a timeout it is short: nothing more is to come but what was smuggled out of the jail.
async fn drain<T>(
    output: impl Future<Output = T>,
    signals: &mut tokio::sync::mpsc::Receiver<i32>,
    timed_out: bool,
) -> Option<T> {
    let limit = if timed_out { Duration::from_secs(2) } else { Duration::from_secs(86_400) };
    tokio::select! {
        passed = output => Some(passed),
        _ = signals.recv() => None,
        () = tokio::time::sleep(limit) => None,
    }
}

/// Our standard input, to the command.
async fn feed(mut stdin: tokio::net::unix::pipe::Sender) {
    // The command may close its input before ours ends: that is its right.
    drop(tokio::io::copy(&mut tokio::io::stdin(), &mut stdin).await);
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Stdout,
    Stderr,
}

/// What was kept of a stream for `--json`, and whether there was more.
struct Kept {
    bytes: Vec<u8>,
    truncated: bool,
}

/// The command's output, to ours, or kept for the result.
async fn pass(mut pipe: impl AsyncRead + Unpin, target: Target, keep: bool) -> Kept {
    let mut kept = Kept { bytes: Vec::new(), truncated: false };
    let terminal = match target {
        Target::Stdout => std::io::stdout().is_terminal(),
        Target::Stderr => std::io::stderr().is_terminal(),
    };
    let (mut out, mut err) = (tokio::io::stdout(), tokio::io::stderr());
    let mut chunk = vec![0; 64 * 1024];
    let mut filter = TerminalFilter::default();
    loop {
        let length = match pipe.read(&mut chunk).await {
            Ok(0) | Err(_) => return kept,
            Ok(length) => length,
        };
        if keep {
            let taken = length.min(JSON_LIMIT - kept.bytes.len());
            kept.bytes.extend_from_slice(&chunk[..taken]);
            kept.truncated |= taken < length;
            continue;
        }
        let bytes =
            if terminal { filter.clean(&chunk[..length]) } else { chunk[..length].to_vec() };
        let written = match target {
            Target::Stdout => write_all(&mut out, &bytes).await,
            Target::Stderr => write_all(&mut err, &bytes).await,
        };
        if written.is_err() {
            // Whoever reads us has gone: so has the command's reader, which it learns by SIGPIPE.
            return kept;
        }
    }
}

async fn write_all(
    mut to: impl tokio::io::AsyncWrite + Unpin,
    bytes: &[u8],
) -> std::io::Result<()> {
    to.write_all(bytes).await?;
    to.flush().await
}

fn number_of_connections(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number @ 1..=256) => Ok(number),
        _ => Err("a number from 1 to 256".to_owned()),
    }
}

/// Tells what would have to be allowed for the command to get what it wanted.
fn say_refused(used: Option<&NetworkUse>) {
    for refused in used.map(|used| used.refused.as_slice()).unwrap_or_default() {
        let RefusedUse { reason, protocol, host, port, rule, .. } = refused;
        let remedy = rule.as_ref().map(|rule| format!("; --allow {rule}")).unwrap_or_default();
        let port = if *port == 0 { String::new() } else { format!(":{port}") };
        eprintln!("agentjail: refused {protocol} {host}{port} ({reason}{remedy})");
    }
}

fn print_json(
    outcome: &Outcome,
    out: Kept,
    err: Kept,
    enforced: &[String],
    used: Option<&NetworkUse>,
) -> anyhow::Result<()> {
    let stats = outcome.statistics.map(|stats| {
        json!({
            "memory_peak_bytes": stats.memory_peak_bytes,
            "memory_current_bytes": stats.memory_current_bytes,
            "cpu_usage_usec": stats.cpu_usage_usec,
            "cpu_user_usec": stats.cpu_user_usec,
            "cpu_system_usec": stats.cpu_system_usec,
            "io_read_bytes": stats.io_read_bytes,
            "io_write_bytes": stats.io_write_bytes,
            "pids_current": stats.pids_current,
        })
    });
    let result = json!({
        "stdout": String::from_utf8_lossy(&out.bytes),
        "stderr": String::from_utf8_lossy(&err.bytes),
        "stdout_truncated": out.truncated,
        "stderr_truncated": err.truncated,
        "exit_code": outcome.exit_code(),
        "duration_ms": outcome.duration.as_millis().max(1),
        "timed_out": outcome.timed_out,
        "cpu_exhausted": outcome.cpu_exhausted,
        "oom_killed": outcome.oom_killed,
        "stats": stats,
        "enforced": enforced,
        "network": used,
    });
    // Control characters beyond ASCII, which JSON leaves as they are, speak to terminals, too.
    let plain = |c: char| match c {
        '\u{80}'..='\u{9f}' => format!("\\u{:04x}", u32::from(c)),
        other => other.to_string(),
    };
    let line: String = result.to_string().chars().map(plain).collect();
    writeln!(std::io::stdout(), "{line}").context("could not print the result")
}

fn exit_code(outcome: &Outcome) -> ExitCode {
    if outcome.timed_out {
        eprintln!("agentjail: timed out");
        return ExitCode::from(TIMED_OUT);
    }
    if outcome.cpu_exhausted {
        eprintln!("agentjail: out of processor time (--cpu-time)");
        return ExitCode::from(TIMED_OUT);
    }
    if outcome.oom_killed {
        eprintln!("agentjail: out of memory (--memory-mb)");
    }
    ExitCode::from(u8::try_from(outcome.exit_code()).unwrap_or(u8::MAX))
}
