//! `agentjail agents`: coding agents in the state directory, once, for the jails of all.

use std::io::{self, Write as _};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};

use crate::shelf::{At, Remove, Shelf, list};

/// They stand on the shelf of the flavors: read-only in each jail that is given them.
const KIND: &str = "flavor";
const PREFIX: &str = "agent-";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Install coding agents from npm, pinned to the last dependency: `claude`, `codex`, `opencode`, …
    Install(Install),
    /// List those that are installed
    #[command(visible_alias = "ls")]
    List(At),
    /// Remove one; jails that run keep it to their end
    #[command(visible_alias = "rm")]
    Remove(Remove),
}

#[derive(Debug, Args)]
pub(crate) struct Install {
    #[arg(required = true, value_name = "AGENT")]
    agents: Vec<String>,
    /// Put it in the place of one that is there; without, one that is there is left as it is
    #[arg(long)]
    replace: bool,
    /// Take npm packages from here
    #[arg(long, env = "SANDBOX_AGENT_NPM_REGISTRY", value_name = "URL")]
    npm_registry: Option<String>,
    #[command(flatten)]
    at: At,
}

pub(crate) fn agents(command: Command, json: bool) -> anyhow::Result<ExitCode> {
    match command {
        Command::Install(install) => {
            let shelf = Shelf::of(KIND, &install.at)?;
            let known = sandbox_agent::installable();
            if let Some(other) =
                install.agents.iter().find(|agent| !known.contains(&agent.as_str()))
            {
                bail!("there is no agent {other:?}; there are: {}", known.join(", "));
            }
            for agent in &install.agents {
                let name = format!("{PREFIX}{agent}");
                let target = shelf.path.join(&name);
                if target.exists() && !install.replace {
                    writeln!(io::stdout(), "{agent}\t{}\talready there", target.display())?;
                    continue;
                }
                let seen = format!("/opt/flavors/{name}/bin");
                let (target, ()) = shelf
                    .add(&name, install.replace, |made, _| {
                        let registry = install.npm_registry.clone();
                        sandbox_agent::into_directory(agent, made.to_owned(), seen.into(), registry)
                    })
                    .with_context(|| agent.clone())?;
                writeln!(io::stdout(), "{agent}\t{}", target.display())?;
            }
        }
        Command::List(at) => {
            let all = control::flavors::list(&Shelf::of(KIND, &at)?.path)?;
            let agents = all.iter().filter_map(|(name, path)| {
                Some((name.strip_prefix(PREFIX)?.to_owned(), path.display().to_string()))
            });
            list(agents, ["name", "path"], json)?;
        }
        Command::Remove(mut remove) => {
            let agent = remove.name.clone();
            remove.name.insert_str(0, PREFIX);
            Shelf::remove(KIND, &remove)
                .with_context(|| format!("the agent {agent} was not removed"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
