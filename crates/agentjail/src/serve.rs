//! `agentjail serve`: logging, the engine, signals, and the server's life between them.

mod configure;
mod flags;

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use jail::Engine;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use configure::configure;
pub(crate) use configure::{networks, resolutions, state_dir_of};
pub(crate) use flags::Flags;

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
