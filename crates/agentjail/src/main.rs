//! The `agentjail` program: it decides what this process is, and lets that part run.

mod agents;
mod attack;
mod client;
mod doctor;
mod flavors;
mod images;
mod run;
mod serve;
mod shelf;
mod terminal;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;

/// Run coding agents and untrusted code in millisecond jails that never hold a real key.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true, after_help = EXAMPLES)]
struct Arguments {
    #[command(flatten)]
    global: client::Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the control plane (port 7000) and the phantom proxy (port 8443)
    Serve(Box<serve::Flags>),
    /// Run one command in a jail, without a server
    Run(Box<run::Flags>),
    #[command(flatten)]
    Client(client::Command),
    /// Add, list and remove the runtimes that jails can be given
    #[command(subcommand)]
    Flavors(flavors::Command),
    /// Root file systems that jails can have in place of the machine's: add, list, remove
    #[command(subcommand)]
    Images(images::Command),
    /// Coding agents for all jails: install, list, remove
    #[command(subcommand)]
    Agents(agents::Command),
    /// The sandbox agent: files, processes, terminals and coding agents of the sandbox this runs in
    Agent(Box<sandbox_agent::Flags>),
    /// Tell what this machine can enforce, what is missing, and how to get it
    Doctor(doctor::Flags),
    /// Attempt something that a jail must refuse. For `doctor --attack`, which runs it inside one
    #[command(hide = true)]
    Attempt { line: String, arguments: Vec<String> },
    /// Print completions for a shell
    Completions { shell: Shell },
    /// Print the control plane's OpenAPI document
    Openapi,
}

const EXAMPLES: &str = "\
Examples:
  agentjail run -- python3 -c 'print(40 + 2)'
  agentjail run --allow pypi.org --allow files.pythonhosted.org --output . -- pip download six -d /output
  agentjail run --workspace . --rw -- make test
  agentjail serve
  agentjail ws create --git https://github.com/my-org/app
  agentjail exec WORKSPACE -- npm test
  agentjail doctor";

fn main() -> ExitCode {
    // Before anything that could start a thread: a launcher clones itself, and may have only one.
    if let Some(role) = jail::Role::from_argv0() {
        return jail::run_launcher(&role);
    }
    #[cfg(feature = "mutations")]
    mutation::leave_out(&std::env::var("AGENTJAIL_WITHOUT").into_iter().collect::<Vec<_>>());
    let Arguments { global, command } = Arguments::parse();
    match act(&global, command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("agentjail: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn act(global: &client::Global, command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Serve(flags) => serve::serve(*flags),
        Command::Run(flags) => run::run(*flags),
        Command::Client(command) => client::run(global, command),
        Command::Flavors(command) => flavors::flavors(command, global.json),
        Command::Images(command) => images::images(command, global.json),
        Command::Agents(command) => agents::agents(command, global.json),
        Command::Agent(flags) => Ok(sandbox_agent::act(*flags)),
        Command::Doctor(flags) => doctor::doctor(&flags),
        Command::Attempt { line, arguments } => Ok(attack::attempt(&line, &arguments)),
        Command::Completions { shell } => {
            clap_complete::generate(
                shell,
                &mut Arguments::command(),
                "agentjail",
                &mut std::io::stdout(),
            );
            Ok(ExitCode::SUCCESS)
        }
        Command::Openapi => {
            let document = control::openapi_document().to_pretty_json()?;
            // A reader that closes early (`| head`) is not an error of ours.
            drop(std::io::Write::write_all(
                &mut std::io::stdout(),
                format!("{document}\n").as_bytes(),
            ));
            Ok(ExitCode::SUCCESS)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_do_not_contradict_each_other() {
        Arguments::command().debug_assert();
    }
}
