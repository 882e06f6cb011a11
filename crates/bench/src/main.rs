//! What we claim, measured: each figure beside its peers, interleaved, in one run.
//!
//! Prints a table and writes `docs/benchmarks.md`; with a section's name (`jails`, `runs`, `snapshots`, `proxy`, `sandbox`, `joined`), only
//! prints that. A peer that is not installed is said to be missing.

mod jails;
mod joined;
mod peer;
mod proxy;
mod runs;
mod sandbox;
mod snapshots;
mod table;

use std::process::ExitCode;

use crate::table::Report;

fn main() -> ExitCode {
    if let Some(role) = jail::Role::from_argv0() {
        return jail::run_launcher(&role);
    }
    match measure() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let only = std::env::args().nth(1);
    // On a worker, where a server's requests are.
    let report = runtime.block_on(runtime.spawn(sections(only.clone())))??;
    // A page of single sections would pass for all there is.
    if only.is_none() { report.write() } else { Ok(()) }
}

async fn sections(only: Option<String>) -> anyhow::Result<Report> {
    let mut report = Report::default();
    let wanted = |name: &str| only.as_deref().is_none_or(|only| only == name);
    if wanted("jails") {
        jails::measure(&mut report).await?;
    }
    if wanted("runs") {
        runs::measure(&mut report).await?;
    }
    if wanted("snapshots") {
        snapshots::measure(&mut report).await?;
    }
    if wanted("proxy") {
        proxy::measure(&mut report).await?;
    }
    if wanted("sandbox") {
        sandbox::measure(&mut report).await?;
    }
    if wanted("joined") {
        joined::measure(&mut report).await?;
    }
    Ok(report)
}
