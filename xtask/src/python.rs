//! The Python SDK: its own commands, as its users run them.

use std::path::PathBuf;

use crate::sandbox::Sandbox;
use crate::{command, root, run, say, target};

const UV: &str = "uv==0.13.9";

/// Lints, types, tests, and tests against the real program.
pub(crate) fn sdk() -> anyhow::Result<()> {
    say("the Python SDK, against the real program");
    let uv = uv()?;
    let words: [&[&str]; 7] = [
        &["sync", "--quiet"],
        &["run", "ruff", "check"],
        &["run", "ruff", "format", "--check"],
        &["run", "mypy", "sandboxagent"],
        &["run", "mypy", "agentjail", "tests"],
        &["run", "pytest", "-q"],
        &["run", "pytest", "-q", "-m", "integration"],
    ];
    for words in words {
        run(in_project(&uv, words).env("SANDBOX_AGENT_BIN", Sandbox::program()))?;
    }
    Ok(())
}

/// A command of uv's in the SDK's project, whose environment is below the target directory.
pub(crate) fn in_project(uv: &PathBuf, words: &[&str]) -> std::process::Command {
    let mut command = command(uv);
    command
        .args(words)
        .current_dir(root().join("sdks/python"))
        .env("UV_PYTHON_DOWNLOADS", "never")
        .env("UV_PROJECT_ENVIRONMENT", target().join("python-sdk"))
        .env_remove("VIRTUAL_ENV");
    command
}

/// uv, in an environment of its own.
pub(crate) fn uv() -> anyhow::Result<PathBuf> {
    let home = target().join("uv");
    let uv = home.join("bin/uv");
    if !uv.exists() {
        run(command("python3").args(["-m", "venv"]).arg(&home))?;
        run(command(home.join("bin/python")).args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            UV,
        ]))?;
    }
    Ok(uv)
}
