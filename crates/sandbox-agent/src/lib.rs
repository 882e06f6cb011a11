//! What `sandbox-agent` and `agentjail agent` do: read what was typed, and let that part run.

mod keeper;
mod logs;
mod server;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Files, processes, terminals and coding agents of one sandbox, over HTTP.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true)]
pub struct Arguments {
    #[command(flatten)]
    access: server::Access,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the sandbox this runs in
    Server(Box<server::Flags>),
    /// Print the OpenAPI document
    Openapi,
    /// Be the built-in agent, on standard input and output
    #[command(hide = true)]
    MockAgentProcess,
}

/// Does what was asked. To be called before anything that starts a thread.
pub fn run(arguments: Arguments) -> ExitCode {
    let Arguments { access, command } = arguments;
    let done = match command {
        Command::Server(flags) => server::server(access, *flags),
        Command::Openapi => openapi(),
        Command::MockAgentProcess => mock(),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("sandbox-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn openapi() -> anyhow::Result<ExitCode> {
    let document = agent::openapi_document().to_pretty_json()?;
    // A reader that closes early (`| head`) is not an error of ours.
    drop(std::io::Write::write_all(&mut std::io::stdout(), format!("{document}\n").as_bytes()));
    Ok(ExitCode::SUCCESS)
}

#[expect(clippy::disallowed_methods, reason = "a process of its own, told by its environment")]
fn mock() -> anyhow::Result<ExitCode> {
    agent::run_mock(std::env::var_os("MOCK_AGENT_STATE").map(Into::into))?;
    Ok(ExitCode::SUCCESS)
}
