//! `agentjail exec`: a command in a workspace as if it ran here.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use clap::Args;
use futures_util::StreamExt as _;
use reqwest::{Body, Method};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;

use super::connection::{Connection, part};
use super::ws::without_nulls;
use crate::run::TIMED_OUT;
use crate::terminal::TerminalFilter;

/// A line of the answer holds at most a pipe's worth of output, in base64.
const LONGEST_LINE: usize = 1 << 20;

#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// Id of the workspace
    workspace: String,
    /// Variable to set; repeatable
    #[arg(short, long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Session whose environment, and phantom proxy, the command gets
    #[arg(long, value_name = "ID")]
    session: Option<String>,
    /// Time until it is killed [default: the workspace's]
    #[arg(long, visible_alias = "timeout", value_name = "SECS")]
    timeout_secs: Option<u64>,
    /// Memory [default: the workspace's]
    #[arg(long, value_name = "MB")]
    memory_mb: Option<u64>,
    /// The command and its arguments
    #[arg(trailing_var_arg = true, required = true, value_name = "CMD [ARGS]")]
    command: Vec<String>,
}

pub(super) async fn exec(connection: &Connection, flags: Exec) -> anyhow::Result<ExitCode> {
    let mut environment = Vec::new();
    for entry in &flags.env {
        let (name, value) =
            entry.split_once('=').with_context(|| format!("--env {entry}: write NAME=VALUE"))?;
        environment.push(json!([name, value]));
    }
    let (program, arguments) = flags.command.split_first().context("a command")?;
    let exec = without_nulls(json!({
        "cmd": program, "args": arguments, "env": environment, "session_id": flags.session,
        "timeout_secs": flags.timeout_secs, "memory_mb": flags.memory_mb,
    }));
    let path = format!("/v1/workspaces/{}/exec/attach", part(&flags.workspace)?);
    let request = connection.request(Method::POST, &path).query(&[("exec", exec.to_string())]);
    let response = connection.send(request.body(Body::wrap_stream(input()))).await?;
    let (mut pieces, mut pending) = (response.bytes_stream(), BytesMut::new());
    let mut ends = (End::new(std::io::stdout()), End::new(std::io::stderr()));
    while let Some(piece) = pieces.next().await {
        pending
            .extend_from_slice(&piece.context("the connection broke off; the command was ended")?);
        while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
            let line = pending.split_to(end + 1);
            if let Some(code) = heard(&line, &mut ends)? {
                return Ok(code);
            }
        }
        if pending.len() > LONGEST_LINE {
            bail!("the server does not speak as expected: is this its URL?");
        }
    }
    bail!("the connection broke off; the command was ended")
}

/// One end of ours. A terminal gets only what a jailed program may say to one.
struct End<W> {
    to: W,
    filter: Option<TerminalFilter>,
}

impl<W: Write + IsTerminal> End<W> {
    fn new(to: W) -> Self {
        let filter = to.is_terminal().then(TerminalFilter::default);
        Self { to, filter }
    }

    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match &mut self.filter {
            Some(filter) => self.to.write_all(&filter.clean(bytes))?,
            None => self.to.write_all(bytes)?,
        }
        self.to.flush()
    }
}

/// Standard input, as it comes.
fn input() -> impl futures_util::Stream<Item = std::io::Result<Bytes>> + Send + 'static {
    futures_util::stream::unfold(tokio::io::stdin(), |mut stdin| async {
        let mut piece = BytesMut::with_capacity(64 * 1024);
        match stdin.read_buf(&mut piece).await {
            Ok(0) => None,
            Ok(_) => Some((Ok(piece.freeze()), stdin)),
            Err(error) => Some((Err(error), stdin)),
        }
    })
}

/// Passes on what a line says; gives the exit code if it is the last.
fn heard(
    line: &[u8],
    (stdout, stderr): &mut (End<std::io::Stdout>, End<std::io::Stderr>),
) -> anyhow::Result<Option<ExitCode>> {
    if line.trim_ascii().is_empty() {
        return Ok(None);
    }
    let said: Value =
        serde_json::from_slice(line).context("the server does not speak as expected")?;
    let bytes = |field: &str| said[field].as_str().map(|text| STANDARD.decode(text)).transpose();
    if let Some(bytes) = bytes("stdout")? {
        stdout.write(&bytes).context("standard output")?;
    }
    if let Some(bytes) = bytes("stderr")? {
        stderr.write(&bytes).context("standard error")?;
    }
    if let Some(message) = said["error"]["message"].as_str() {
        bail!("{message}");
    }
    let Some(code) = said["completed"]["exit_code"].as_i64() else { return Ok(None) };
    if said["completed"]["oom_killed"] == true {
        eprintln!("agentjail: it ran out of memory");
    }
    if said["completed"]["timed_out"] == true {
        eprintln!("agentjail: timed out");
        return Ok(Some(ExitCode::from(TIMED_OUT)));
    }
    Ok(Some(ExitCode::from(u8::try_from(code).unwrap_or(255))))
}
