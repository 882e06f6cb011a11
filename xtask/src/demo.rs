//! `cargo xtask demo`: builds everything and lets `demo/story.mjs` tell the story.

use std::fs;

use crate::{cargo, command, compat, npm, python, root, run, say, setup, target};

pub(crate) fn demo() -> anyhow::Result<()> {
    setup::for_demo()?;
    say("building agentjail");
    cargo(&["build", "--quiet", "--package", "agentjail"])?;
    let sdk = root().join("sdks/typescript");
    say("building @agentjail/sdk");
    run(npm(&["ci", "--no-audit", "--no-fund", "--loglevel", "error"]).current_dir(&sdk))?;
    run(npm(&["run", "--silent", "build"]).current_dir(&sdk))?;
    say("installing the official clients for the jails: openai from npm, anthropic from PyPI");
    let flavor = target().join("demo-flavor");
    fs::create_dir_all(flavor.join("bin"))?;
    for file in ["package.json", "bin/ask-openai"] {
        fs::copy(root().join("demo/flavor").join(file), flavor.join(file))?;
    }
    run(npm(&["install", "--no-audit", "--no-fund", "--no-package-lock", "--loglevel", "error"])
        .current_dir(&flavor))?;
    install_python_client(&flavor.join("python"))?;
    let state = compat::agents_state(&["claude"])?;
    let uv = python::uv()?;
    run(&mut python::in_project(&uv, &["sync", "--quiet"]))?;
    run(command("node")
        .arg(root().join("demo/story.mjs"))
        .arg(target().join("debug/agentjail"))
        .args([&sdk, &flavor, &state.join("flavors"), &target().join("python-sdk/bin/python")]))
}

/// Wheels for the jail's Python, which is the system's, whichever one pip itself runs on.
fn install_python_client(into: &std::path::Path) -> anyhow::Result<()> {
    if into.join("anthropic").exists() {
        return Ok(());
    }
    let script = "import sys; print('%d.%d' % sys.version_info[:2])";
    let version = command("/usr/bin/python3").args(["-c", script]).output()?;
    let version = String::from_utf8(version.stdout)?.trim().to_owned();
    run(command("pip3")
        .args(["install", "--quiet", "--disable-pip-version-check", "--no-warn-conflicts"])
        .args(["--root-user-action", "ignore", "--only-binary=:all:"])
        .args(["--python-version", &version, "--target"])
        .arg(into)
        .arg("anthropic==0.117.0"))
}
