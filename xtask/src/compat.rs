//! The published clients of others against our server, unchanged.

use std::path::PathBuf;
use std::process::Command;

use crate::python;
use crate::sandbox::Sandbox;
use crate::{command, npm, root, run, say, target};

/// Those of npm, `sandbox-agent`, and of the Python index, `sandbox-agent-sdk`.
pub(crate) fn clients() -> anyhow::Result<()> {
    let folder = root().join("compat");
    say("the published clients: npm sandbox-agent");
    let node = folder.join("node");
    run(npm(&["ci", "--no-audit", "--no-fund"]).current_dir(&node))?;
    run(npm(&["test"]).current_dir(&node).env("SANDBOX_AGENT_BIN", Sandbox::program()))?;
    say("the published clients: PyPI sandbox-agent-sdk");
    let home = target().join("compat");
    let python = home.join("bin/python");
    if !python.exists() {
        run(command("python3").args(["-m", "venv"]).arg(&home))?;
    }
    let requirements = folder.join("python/requirements.txt");
    run(command(&python)
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"])
        .arg(requirements))?;
    for test in [&["-m", "pytest", "-q"][..], &["published.py"]] {
        run(command(&python)
            .args(test)
            .current_dir(folder.join("python"))
            .env("SANDBOX_AGENT_BIN", Sandbox::program()))?;
    }
    Ok(())
}

/// Agents in jails by the examples of our documents, with the built-in agent; and the platform as tools, by the
/// official client of MCP.
pub(crate) fn joined() -> anyhow::Result<()> {
    say("the guides, with the built-in agent");
    let uv = python::uv()?;
    run(joined_python(&uv, "test_guides.py").env_remove("AGENTS_STATE"))?;
    say("the official MCP client, and the README of the TypeScript SDK");
    run(joined_node(&["mcp.test.mjs", "readme.test.mjs"])?.env_remove("AGENTS_STATE"))
}

/// Real coding agents from npm, by themselves and in jails. Not part of the gate: they are gigabytes.
pub(crate) fn agents() -> anyhow::Result<()> {
    say("real coding agents against a stand-in model");
    run(command("node")
        .args(["--test", "--test-concurrency=1", "agents.test.mjs"])
        .current_dir(root().join("compat/agents"))
        .env("SANDBOX_AGENT_BIN", Sandbox::program()))?;
    let state = agents_state(&["claude", "codex", "opencode"])?;
    say("real coding agents in jails, through the Python SDK");
    let uv = python::uv()?;
    run(python::in_project(&uv, &["sync", "--quiet"]).env_remove("AGENTS"))?;
    run(joined_python(&uv, "").env("AGENTS_STATE", &state))?;
    say(
        "real coding agents in jails, through the TypeScript SDK; and Claude Code as a client of MCP",
    );
    run(joined_node(&["joined.test.mjs", "mcp.test.mjs", "readme.test.mjs"])?
        .env("AGENTS_STATE", &state))
}

/// A state directory in which coding agents are installed.
pub(crate) fn agents_state(agents: &[&str]) -> anyhow::Result<PathBuf> {
    let state = target().join("agents-state");
    say(&format!("installing coding agents for jails, once: {}", agents.join(", ")));
    run(command(target().join("debug/agentjail"))
        .args(["agents", "install", "--state-dir"])
        .arg(&state)
        .args(agents))?;
    Ok(state)
}

fn joined_python(uv: &PathBuf, tests: &str) -> Command {
    let folder = root().join("compat/joined");
    let (settings, tests) = (folder.join("pytest.ini"), folder.join(tests));
    let mut command = python::in_project(uv, &["run", "pytest", "-q", "-c"]);
    command.arg(settings).arg(tests).env("AGENTJAIL_BIN", target().join("debug/agentjail"));
    command
}

fn joined_node(tests: &[&str]) -> anyhow::Result<Command> {
    let sdk = root().join("sdks/typescript");
    run(npm(&["ci", "--no-audit", "--no-fund", "--loglevel", "error"]).current_dir(&sdk))?;
    run(npm(&["run", "--silent", "build"]).current_dir(&sdk))?;
    let folder = root().join("compat/joined");
    run(npm(&["ci", "--no-audit", "--no-fund", "--loglevel", "error"]).current_dir(&folder))?;
    let mut node = command("node");
    node.args(["--test", "--test-concurrency=1", "--test-timeout=180000"])
        .args(tests)
        .current_dir(folder)
        .env("AGENTJAIL_BIN", target().join("debug/agentjail"));
    Ok(node)
}
