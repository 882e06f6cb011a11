//! What we claim, measured: each figure beside its peers, interleaved, in one run.
//!
//! Prints a table and writes `docs/benchmarks.md`. A peer that is not installed is said to be missing.

mod jails;
mod proxy;
mod runs;
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
    let mut report = Report::default();
    runtime.block_on(async {
        jails::measure(&mut report).await?;
        runs::measure(&mut report).await?;
        proxy::measure(&mut report).await
    })?;
    report.write()
}
