//! The `sandbox-agent` program.

use std::process::ExitCode;

use clap::Parser as _;
use sandbox_agent::Arguments;

fn main() -> ExitCode {
    sandbox_agent::run(Arguments::parse())
}
