//! Build chores: `cargo xtask COMMAND`. What `.ci/run` does and what a laptop does are the same.

mod compat;
mod demo;
mod fuzz;
mod python;
mod sandbox;
mod schemathesis;
mod setup;
mod tidy;
mod vm;
mod web;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, bail};

const HELP: &str = "\
cargo xtask COMMAND

  demo    build, and watch a model client run in a jail without its key
  test    everything that CI runs: format, lints, docs, tests, attacks, SDK
  bench   measure what we claim beside its peers; writes docs/benchmarks.md
  fuzz    coverage-guided fuzzing, 60 s a target or as many as a second word says
  vm-test the engine's tests on cgroup v2, in a guest (QEMU)
  gen     write what is generated from the programs: the OpenAPI documents in docs/reference
  web     build the inspector, which the sandbox agent then has in it
  agents  install real coding agents from npm and let them work against a stand-in model
";

fn main() -> ExitCode {
    let command = std::env::args().nth(1);
    let done = match command.as_deref() {
        Some("demo") => demo::demo(),
        Some("test" | "ci") => test(),
        Some("bench") => bench(),
        Some("gen") => generate(),
        Some("web") => web::build(),
        Some("agents") => build_for_tests().and_then(|()| compat::agents()),
        Some("fuzz") => fuzz::fuzz(fuzz::Length::Seconds(seconds())),
        Some("vm-test") => vm::test(),
        _ => {
            eprint!("{HELP}");
            return ExitCode::FAILURE;
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// How long to fuzz each target.
fn seconds() -> u64 {
    std::env::args().nth(2).and_then(|text| text.parse().ok()).unwrap_or(60)
}

/// The whole gate.
fn test() -> anyhow::Result<()> {
    setup::for_tests()?;
    cargo(&["fmt", "--all", "--check"])?;
    web::check()?;
    cargo(&["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"])?;
    run(cargo_command(&["doc", "--workspace", "--no-deps", "--quiet"])
        .env("RUSTDOCFLAGS", "-D warnings"))?;
    tidy::check(&root())?;
    build_for_tests()?;
    cargo(&["test", "--workspace", "--exclude", "e2e"])?;
    cargo(&["test", "--package", "e2e"])?;
    schemathesis::control_plane()?;
    schemathesis::sandbox_agent()?;
    compat::clients()?;
    web::browser()?;
    fuzz::fuzz(fuzz::Length::Runs(RUNS_IN_TESTS))?;
    sdk()?;
    python::sdk()?;
    compat::joined()?;
    say("everything passed");
    Ok(())
}

/// Inputs that each target is given in the gate: a few seconds' worth.
const RUNS_IN_TESTS: u64 = 100_000;

/// The program, and beside it the one that can leave protections out.
pub(crate) fn build_for_tests() -> anyhow::Result<()> {
    let directory = target().join("debug");
    cargo(&["build", "--package", "agentjail", "--features", "mutations"])?;
    std::fs::copy(directory.join("agentjail"), directory.join("agentjail-mutations"))?;
    cargo(&["build", "--package", "agentjail", "--package", "sandbox-agent"])
}

fn sdk() -> anyhow::Result<()> {
    let directory = root().join("sdks/typescript");
    say("the TypeScript SDK, against the real program");
    run(npm(&["ci", "--no-audit", "--no-fund"]).current_dir(&directory))?;
    run(npm(&["run", "typecheck"]).current_dir(&directory))?;
    run(npm(&["test"]).current_dir(&directory))?;
    run(npm(&["pack", "--dry-run"]).current_dir(&directory))
}

fn bench() -> anyhow::Result<()> {
    setup::for_benches()?;
    web::build()?;
    cargo(&["build", "--release", "--package", "agentjail", "--package", "bench"])?;
    // By itself: built beside the others it would have what only they need.
    cargo(&["build", "--release", "--package", "sandbox-agent"])?;
    run(&mut command(target().join("release/bench")))
}

fn generate() -> anyhow::Result<()> {
    cargo(&["build", "--package", "agentjail", "--package", "sandbox-agent"])?;
    for (program, page) in [("agentjail", "openapi.json"), ("sandbox-agent", "sandbox-agent.json")]
    {
        let output = command(target().join("debug").join(program)).arg("openapi").output()?;
        let file = root().join("docs/reference").join(page);
        std::fs::write(&file, output.stdout)
            .with_context(|| format!("could not write {}", file.display()))?;
    }
    Ok(())
}

/// The repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is in the repository").to_owned()
}

/// Where cargo builds.
#[expect(clippy::disallowed_methods, reason = "xtask is a program of its own")]
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

#[expect(clippy::disallowed_methods, reason = "xtask runs the tools of a build")]
pub(crate) fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root());
    command
}

fn cargo_command(arguments: &[&str]) -> Command {
    let mut command = command("cargo");
    command.args(arguments);
    command
}

pub(crate) fn npm(arguments: &[&str]) -> Command {
    let mut command = command("npm");
    command.args(arguments);
    command
}

pub(crate) fn cargo(arguments: &[&str]) -> anyhow::Result<()> {
    run(&mut cargo_command(arguments))
}

pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let words: Vec<_> = std::iter::once(command.get_program()).chain(command.get_args()).collect();
    let line = words.join(std::ffi::OsStr::new(" ")).to_string_lossy().into_owned();
    say(&line);
    let status = command.status().with_context(|| format!("could not run {line}"))?;
    if status.success() { Ok(()) } else { bail!("{line}: {status}") }
}

pub(crate) fn say(text: &str) {
    eprintln!("\n\u{25b8} {text}");
}
