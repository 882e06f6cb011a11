//! The web workspace: the inspector, built before the program that has it in it.

use crate::sandbox::Sandbox;
use crate::{command, npm, root, run, say};

fn install() -> anyhow::Result<()> {
    run(npm(&["ci", "--no-audit", "--no-fund"]).current_dir(root().join("web")))
}

/// Builds the inspector. The next build of the sandbox agent has it in it.
pub(crate) fn build() -> anyhow::Result<()> {
    say("the inspector");
    install()?;
    run(npm(&["run", "build"]).current_dir(root().join("web")))
}

/// Types, lints, unit tests, and the page itself.
pub(crate) fn check() -> anyhow::Result<()> {
    build()?;
    run(npm(&["run", "check"]).current_dir(root().join("web")))?;
    run(npm(&["test"]).current_dir(root().join("web")))
}

/// A real browser on the real page of the real server.
pub(crate) fn browser() -> anyhow::Result<()> {
    say("the inspector in a browser");
    let server = Sandbox::start(&[])?;
    let mut test = command("npm");
    test.args(["run", "test:browser"]).current_dir(root().join("web"));
    run(test.env("AGENT_URL", server.url()).env("AGENT_TOKEN", Sandbox::TOKEN))
}
