//! `sandbox-agent install-agent` and `install desktop`.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use agent::{Agents, Environment, Versions};
use anyhow::bail;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use crate::place;

/// Install a coding agent, from npm, as pinned
#[derive(Debug, Args)]
pub(crate) struct AgentFlags {
    /// Which, or `all`
    #[arg(required_unless_present = "all", value_name = "AGENT")]
    agent: Option<String>,
    /// All there are
    #[arg(long)]
    all: bool,
    /// Also if it is there
    #[arg(short, long)]
    reinstall: bool,
    /// A version of the agent in place of the one that is pinned
    #[arg(long, value_name = "VERSION")]
    agent_version: Option<String>,
    /// A version of its ACP adapter in place of the one that is pinned
    #[arg(long, value_name = "VERSION")]
    agent_process_version: Option<String>,
    /// Take npm packages from here
    #[arg(long, env = "SANDBOX_AGENT_NPM_REGISTRY", value_name = "URL")]
    npm_registry: Option<String>,
}

pub(crate) fn agent(flags: AgentFlags) -> anyhow::Result<ExitCode> {
    place::wait_for(install(flags))
}

async fn install(flags: AgentFlags) -> anyhow::Result<ExitCode> {
    let server = place::environment();
    let (home, data) = (place::home(&server), place::data(&server));
    let mut base = server.clone();
    base.retain(|name, _| ["PATH", "HOME", "USER", "LANG", "TMPDIR"].contains(&name.as_str()));
    let environment = Environment { base, server };
    let agents = Agents::alone(data, home, environment, flags.npm_registry.clone(), None)?;
    let versions = Versions {
        native: flags.agent_version.clone(),
        adapter: flags.agent_process_version.clone(),
    };
    match flags.agent.as_deref() {
        Some(one) if one != "all" && !flags.all => {
            place::print(&one_agent(&agents, one, versions, flags.reinstall).await?)?;
            Ok(ExitCode::SUCCESS)
        }
        _ if versions != Versions::default() => bail!("versions are those of one agent: name it"),
        _ => all(&agents, flags.reinstall).await,
    }
}

/// Installs an agent into a directory, whose `bin` will be at `seen` for those who run it. What it does goes to standard
/// error, but for each of its some hundred packages.
///
/// # Errors
///
/// If there is no such agent, or it could not be fetched or put in place.
pub fn into_directory(
    agent: &str,
    directory: PathBuf,
    seen: PathBuf,
    npm_registry: Option<String>,
) -> anyhow::Result<()> {
    if agent == "mock" {
        bail!("mock is a part of this program");
    }
    let server = place::environment();
    let home = place::home(&server);
    let mut base = server.clone();
    base.retain(|name, _| ["PATH", "HOME", "USER", "LANG", "TMPDIR"].contains(&name.as_str()));
    let environment = Environment { base, server };
    place::wait_for(async {
        let agents = Agents::alone(directory, home, environment, npm_registry, Some(seen))?;
        let mut progress = agents.install(agent, Versions::default(), true).await?;
        while let Some(line) = progress.line().await {
            if !line.starts_with("fetched ") {
                drop(writeln!(std::io::stderr(), "{agent}: {line}"));
            }
        }
        Ok(progress.outcome().await.map(drop)?)
    })
}

/// Agents that can be installed.
pub fn installable() -> Vec<&'static str> {
    agent::agent_ids().filter(|agent| *agent != "mock").collect()
}

/// One that cannot be installed does not keep the others from it.
async fn all(agents: &Agents, reinstall: bool) -> anyhow::Result<ExitCode> {
    let (mut results, mut code) = (Vec::new(), ExitCode::SUCCESS);
    for agent in agent::agent_ids() {
        let result = match one_agent(agents, agent, Versions::default(), reinstall).await {
            Ok(result) => json!({ "agent": agent, "result": result }),
            Err(error) => {
                code = ExitCode::FAILURE;
                eprintln!("sandbox-agent: {agent}: {error:#}");
                json!({ "agent": agent, "error": format!("{error:#}") })
            }
        };
        results.push(result);
    }
    place::print(&json!({ "agents": results }))?;
    Ok(code)
}

async fn one_agent(
    agents: &Agents,
    agent: &str,
    versions: Versions,
    reinstall: bool,
) -> anyhow::Result<Value> {
    let mut progress = agents.install(agent, versions, reinstall).await?;
    while let Some(line) = progress.line().await {
        drop(writeln!(std::io::stderr(), "{agent}: {line}"));
    }
    let installed = progress.outcome().await?;
    let artifacts: Vec<Value> = installed
        .artifacts
        .iter()
        .map(|artifact| {
            let kind = if artifact.kind == "native_agent" { "NativeAgent" } else { "AgentProcess" };
            let source = if artifact.source == "builtin" { "Builtin" } else { "Registry" };
            json!({ "kind": kind, "path": artifact.path, "source": source, "version": artifact.version })
        })
        .collect();
    Ok(json!({ "alreadyInstalled": installed.already, "artifacts": artifacts }))
}

/// Install what else the machine needs
#[derive(Debug, Subcommand)]
pub(crate) enum InstallCommand {
    /// The packages that a desktop needs: prints the command, for you to run
    Desktop(DesktopFlags),
}

#[derive(Debug, Args)]
pub(crate) struct DesktopFlags {
    /// Taken so that scripts need not change
    #[arg(long)]
    yes: bool,
    /// Print the command, and be content
    #[arg(long)]
    print_only: bool,
    #[arg(long, value_enum, default_value_t = Manager::Apt)]
    package_manager: Manager,
    /// Without fonts
    #[arg(long)]
    no_fonts: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Manager {
    Apt,
    Dnf,
    Apk,
}

pub(crate) fn desktop(command: &InstallCommand) -> anyhow::Result<ExitCode> {
    let InstallCommand::Desktop(flags) = command;
    let (install, mut packages) = match flags.package_manager {
        Manager::Apt => (
            "apt-get install -y --no-install-recommends",
            vec![
                "xvfb",
                "openbox",
                "xdotool",
                "imagemagick",
                "x11-xserver-utils",
                "dbus-x11",
                "xauth",
                "xclip",
                "fonts-dejavu-core",
            ],
        ),
        Manager::Dnf => (
            "dnf install -y",
            vec![
                "xorg-x11-server-Xvfb",
                "openbox",
                "xdotool",
                "ImageMagick",
                "xrandr",
                "dbus-x11",
                "xauth",
                "xclip",
                "dejavu-sans-fonts",
            ],
        ),
        Manager::Apk => (
            "apk add",
            vec![
                "xvfb",
                "openbox",
                "xdotool",
                "imagemagick",
                "xrandr",
                "dbus-x11",
                "xauth",
                "xclip",
                "font-dejavu",
            ],
        ),
    };
    if flags.no_fonts {
        packages.pop();
    }
    drop(writeln!(std::io::stdout(), "{install} {}", packages.join(" ")));
    if flags.print_only {
        return Ok(ExitCode::SUCCESS);
    }
    bail!("this program has no desktop to install these for; the command is printed above")
}
