//! The published clients of others against our server, unchanged.

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

/// Real coding agents from npm. Not part of the gate: they are gigabytes.
pub(crate) fn agents() -> anyhow::Result<()> {
    say("real coding agents against a stand-in model");
    run(command("node")
        .args(["--test", "--test-concurrency=1", "agents.test.mjs"])
        .current_dir(root().join("compat/agents"))
        .env("SANDBOX_AGENT_BIN", Sandbox::program()))
}
