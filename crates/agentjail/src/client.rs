//! The commands that talk to a server: `ws`, `snap`, `exec`, `session`, `cred`, `jails`, `audit`, `keys`.
//!
//! On a terminal lists are tables; otherwise, and with `--json`, they are the server's JSON.

mod connection;
mod exec;
mod mcp;
mod records;
mod show;
mod snap;
mod ws;

use std::process::ExitCode;

use clap::{Args, Subcommand};

pub(crate) use connection::Connection;
use show::Show;

/// Where the server is, and how to show what it says.
#[derive(Debug, Args)]
pub(crate) struct Global {
    #[arg(
        long,
        global = true,
        env = "AGENTJAIL_URL",
        value_name = "URL",
        help_heading = "Server",
        help = "The server [default: `url` of ~/.config/agentjail/config.toml, or http://127.0.0.1:7000]"
    )]
    url: Option<String>,
    #[arg(
        long,
        global = true,
        env = "AGENTJAIL_KEY",
        hide_env_values = true,
        value_name = "KEY",
        help_heading = "Server",
        help = "The API key [default: `key` of that file]"
    )]
    key: Option<String>,
    /// Print JSON, also on a terminal
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Workspaces: make, list, fork, restore, remove
    #[command(subcommand)]
    Ws(ws::Ws),
    /// Snapshots: take, list, compare, download, verify, remove
    #[command(subcommand)]
    Snap(snap::Snap),
    /// Run a command in a workspace, with this terminal's input and output and the command's exit code
    Exec(exec::Exec),
    /// Sessions: phantom tokens for services
    #[command(subcommand)]
    Session(records::Session),
    /// Credentials: the real keys, which go in and never come out
    #[command(subcommand)]
    Cred(records::Cred),
    /// The ledger of everything that ran
    #[command(subcommand)]
    Jails(records::Jails),
    /// What the phantom proxy decided
    Audit(records::Audit),
    /// API keys, for admins
    #[command(subcommand)]
    Keys(records::Keys),
    /// The platform as tools of the Model Context Protocol, on standard streams or over HTTP
    Mcp(mcp::Mcp),
    /// Copy the server's state to a directory of its machine while it runs, for admins
    Backup(records::Backup),
}

/// Does one of them.
pub(crate) fn run(global: &Global, command: Command) -> anyhow::Result<ExitCode> {
    let connection = Connection::new(global.url.as_deref(), global.key.as_deref())?;
    let show = Show::new(global.json);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let done = runtime.block_on(async {
        match command {
            Command::Exec(flags) => return exec::exec(&connection, flags).await,
            Command::Mcp(flags) => return mcp::mcp(connection, flags).await,
            Command::Ws(command) => ws::run(&connection, &show, command).await?,
            Command::Snap(command) => snap::run(&connection, &show, command).await?,
            Command::Session(command) => records::session(&connection, &show, command).await?,
            Command::Cred(command) => records::cred(&connection, &show, command).await?,
            Command::Jails(command) => records::jails(&connection, &show, command).await?,
            Command::Audit(flags) => records::audit(&connection, &show, flags).await?,
            Command::Keys(command) => records::keys(&connection, &show, command).await?,
            Command::Backup(flags) => records::backup(&connection, &show, flags).await?,
        }
        Ok(ExitCode::SUCCESS)
    });
    // A read of the terminal that nobody waits for any more must not hold up the end.
    runtime.shutdown_background();
    done
}
