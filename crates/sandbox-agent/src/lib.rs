//! What `sandbox-agent` and `agentjail agent` do: read what was typed, and let that part run.

mod api;
mod credentials;
mod daemon;
mod install;
mod keeper;
mod logs;
mod place;
mod server;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
pub use install::{installable, into_directory};

/// Files, processes, terminals and coding agents of one sandbox, over HTTP.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true)]
pub struct Arguments {
    #[command(flatten)]
    flags: Flags,
}

/// What follows the program's name, or `agentjail agent`.
#[derive(Debug, Args)]
pub struct Flags {
    #[command(flatten)]
    access: server::Access,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the sandbox this runs in
    Server(Box<server::Flags>),
    /// A server in the background
    #[command(subcommand)]
    Daemon(daemon::Command),
    /// Call a running server
    Api(api::Flags),
    /// Install a coding agent, from npm, as pinned
    InstallAgent(install::AgentFlags),
    /// Install what else the machine needs
    #[command(subcommand)]
    Install(install::InstallCommand),
    /// Look for credentials of coding agents
    #[command(subcommand)]
    Credentials(credentials::Command),
    /// Print the OpenAPI document
    Openapi,
    /// Be the built-in agent, on standard input and output
    #[command(hide = true)]
    MockAgentProcess,
}

/// Does what was asked. To be called before anything that starts a thread.
pub fn run(arguments: Arguments) -> ExitCode {
    act(arguments.flags)
}

/// The same, as a part of another program.
pub fn act(flags: Flags) -> ExitCode {
    let Flags { access, command } = flags;
    let done = match command {
        Command::Server(flags) => server::server(access, *flags),
        Command::Daemon(command) => daemon::daemon(access, &command),
        Command::Api(flags) => api::api(access, flags),
        Command::InstallAgent(flags) => install::agent(flags),
        Command::Install(command) => install::desktop(&command),
        Command::Credentials(command) => credentials::credentials(command),
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
