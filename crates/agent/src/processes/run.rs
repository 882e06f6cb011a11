//! A command run to its end: output kept up to a limit, and an answer as soon as it has ended.

use std::pin::pin;
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::time::{sleep, timeout};

use super::config::ProcessConfig;
use super::error::ProcessError;
use super::owner::output_pipes;
use super::spawn::{Ended, Order, Spawner};
use super::wire::{RunRequest, RunResult};

/// Bytes that are read at once.
const CHUNK: usize = 32 * 1024;

/// How long an end waits for what is still in a pipe that a child in the background holds open.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// What is kept of a stream.
#[derive(Debug, Default)]
struct Captured {
    bytes: Vec<u8>,
    truncated: bool,
}

impl Captured {
    fn text(self) -> String {
        match String::from_utf8(self.bytes) {
            Ok(text) => text,
            Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
        }
    }
}

/// Runs a command.
///
/// # Cancel safety
///
/// Dropped midway, it kills what it started.
pub(super) async fn run(
    spawner: &Spawner,
    config: ProcessConfig,
    request: &RunRequest,
    order: impl FnOnce(super::spawn::Stdios) -> Order,
) -> Result<RunResult, ProcessError> {
    let began = Instant::now();
    let limit = request.max_output_bytes.unwrap_or(config.max_output_bytes);
    let limit = usize::try_from(limit.min(config.max_output_bytes)).unwrap_or(usize::MAX);
    let (stdout, stderr, stdio) =
        output_pipes().map_err(|source| ProcessError::Os { what: "make pipes", source })?;
    let mut process = spawner.spawn(order(stdio)).await?;
    let (mut out, mut err) = (Captured::default(), Captured::default());
    let (ended, timed_out) = {
        let output = async {
            tokio::join!(capture(stdout, limit, &mut out), capture(stderr, limit, &mut err))
        };
        let mut output = pin!(output);
        let mut time = pin!(sleep(time_for(request, config)));
        let mut silent = false;
        let ended = loop {
            tokio::select! {
                ended = process.wait() => break Some(ended),
                _ = &mut output, if !silent => silent = true,
                () = &mut time => break None,
            }
        };
        let timed_out = ended.is_none();
        let ended = match ended {
            Some(ended) => ended,
            None => {
                process.signal(rustix::process::Signal::KILL);
                process.wait().await
            }
        };
        if !silent {
            // What is left behind in the background may hold the pipes for ever.
            drop(timeout(LAST_WORDS, &mut output).await);
        }
        (ended, timed_out)
    };
    let ended = ended.map_err(|source| ProcessError::Os { what: "wait for it", source })?;
    let Ended { code, signal } = if timed_out { Ended { code: None, signal: None } } else { ended };
    let (stdout_truncated, stderr_truncated) = (out.truncated, err.truncated);
    Ok(RunResult {
        exit_code: code,
        signal,
        timed_out,
        stdout: out.text(),
        stderr: err.text(),
        stdout_truncated,
        stderr_truncated,
        duration_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
    })
}

fn time_for(request: &RunRequest, config: ProcessConfig) -> Duration {
    let seconds = request.timeout.filter(|seconds| seconds.is_finite() && *seconds > 0.0);
    let longest = Duration::from_millis(config.max_run_timeout_ms);
    let asked = match (request.timeout_ms, seconds) {
        (Some(ms), _) if ms > 0 => Duration::from_millis(ms),
        (_, Some(seconds)) => Duration::try_from_secs_f64(seconds).unwrap_or(longest),
        _ => Duration::from_millis(config.default_run_timeout_ms),
    };
    asked.min(longest)
}

/// Keeps the beginning of a stream, and reads the rest so that its writer does not wait.
async fn capture(mut from: pipe::Receiver, limit: usize, kept: &mut Captured) {
    let mut buffer = Vec::with_capacity(CHUNK.min(limit.max(4096)));
    loop {
        buffer.clear();
        match from.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {
                let room = limit - kept.bytes.len();
                kept.truncated |= buffer.len() > room;
                kept.bytes.extend_from_slice(&buffer[..buffer.len().min(room)]);
            }
        }
    }
}
