//! `cargo xtask vm-test`: the engine's tests on cgroup v2 and another kernel, in a guest.
//!
//! The guest is QEMU under software emulation with Debian's cloud kernel; it shares this machine's
//! files read-only, so the tests built here run there. `xtask/vm/boot.sh` boots it.

use std::io::Write as _;

use anyhow::{Context as _, bail};

use crate::{cargo_command, command, root, say, target};

/// What runs there: the engine, and every line of the attack. (Not the API: it is the same on any
/// kernel.)
const TESTS: [&str; 2] = ["engine::", "attack::suite::every_line_holds_as_root"];

/// Emulated, everything takes many times as long.
const LIMIT_SECONDS: &str = "1500";

pub(crate) fn test() -> anyhow::Result<()> {
    crate::build_for_tests()?;
    let tests = built_tests()?;
    let directory = root().join("crates/e2e");
    let script = format!(
        "cd {} && TMPDIR=/tmp {} {} --include-ignored --test-threads 1",
        directory.display(),
        tests,
        TESTS.join(" ")
    );
    say("the engine's tests, in a guest with cgroup v2");
    let mut boot = command("sh");
    boot.arg(root().join("xtask/vm/boot.sh")).arg(script);
    boot.env("VM_TIMEOUT", LIMIT_SECONDS).env("VM_CACHE", target().join("vm"));
    let status = boot.status().context("could not start the guest")?;
    std::io::stdout().flush()?;
    if status.success() {
        say("everything passed in the guest");
        return Ok(());
    }
    bail!("the tests in the guest: {status}")
}

/// Builds the end-to-end tests; gives the program they are in.
fn built_tests() -> anyhow::Result<String> {
    let arguments =
        ["test", "--package", "e2e", "--test", "e2e", "--no-run", "--message-format=json"];
    let output = cargo_command(&arguments).stderr(std::process::Stdio::inherit()).output()?;
    let text = String::from_utf8(output.stdout)?;
    let mut program = text.lines().filter_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let is_ours = message["target"]["name"] == "e2e" && message["target"]["kind"][0] == "test";
        is_ours.then(|| message["executable"].as_str().map(str::to_owned)).flatten()
    });
    program.next_back().context("cargo built no tests")
}
