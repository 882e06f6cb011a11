//! `doctor --attack`: every line holds, as root and as an ordinary user; and each line is broken when
//! its protection is left out. A line that no switch breaks is listed with the reason.

use std::process::Output;

use e2e::user::{Delegated, can_become, program};
use serde_json::Value;
use tokio::process::Command;

/// A line, and the protections that must be left out together for it to break: where one is enough,
/// one is named.
const MUTATIONS: [(&str, &[&str]); 32] = [
    ("A01", &["close-descriptors"]),
    ("A03", &["proc-masks"]),
    ("A07", &["seccomp"]),
    ("A09", &["undumpable", "landlock"]),
    ("A10", &["core-limit"]),
    ("A11", &["capabilities"]),
    ("A11", &["no-new-privileges", "landlock", "seccomp"]),
    ("A12", &["seccomp", "namespace-limit"]),
    ("A13", &["seccomp"]),
    ("A14", &["death-signal"]),
    ("B01", &["seccomp"]),
    ("B03", &["seccomp"]),
    ("B04", &["seccomp"]),
    ("B05", &["seccomp"]),
    ("B06", &["seccomp"]),
    ("B07", &["seccomp"]),
    ("B08", &["devices"]),
    ("B09", &["no-exec"]),
    ("B10", &["seccomp"]),
    ("B11", &["seccomp"]),
    ("B12", &["seccomp"]),
    ("C01", &["root"]),
    ("C02", &["network-namespace", "landlock"]),
    ("C03", &["network-namespace", "landlock"]),
    ("C08", &["tree-limit"]),
    ("D01", &["network-namespace", "landlock"]),
    ("D02", &["network-namespace", "landlock"]),
    ("D03", &["address-check"]),
    ("D05", &["policy"]),
    ("D08", &["policy"]),
    ("D12", &["network-namespace", "landlock"]),
    ("F11f", &["file-limits"]),
];

/// Broken by a limit that needs a cgroup.
const LIMITS: [(&str, &[&str]); 2] = [("F11", &["pid-limit"]), ("F11m", &["memory-limit"])];

/// What holds without a switch of ours that could be left out, and by what.
const BY_CONSTRUCTION: [(&str, &str); 6] = [
    ("A02", "init runs from a sealed memory file"),
    ("A04", "the template belongs to another user, and its mounts are locked"),
    ("A05", "no mount of ours is made by a path through the workspace"),
    ("A06", "the kernel gives these files to no process without capabilities"),
    ("A08", "a PID namespace: without it there is no /proc to mount and no jail"),
    ("A15", "the end of a PID namespace's init is the end of the namespace"),
];

/// A line that says a thing must work.
const WORKS: [&str; 1] = ["B02"];

fn findings(output: &Output) -> Vec<Value> {
    let said: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    said["findings"].as_array().unwrap().clone()
}

fn doctor(command: &mut Command) -> &mut Command {
    command.args(["doctor", "--attack", "--json"]).kill_on_drop(true)
}

#[tokio::test]
async fn every_line_of_the_suite_is_in_one_of_the_tables() {
    let output = doctor(&mut Command::new(e2e::program())).output().await;
    let mut lines: Vec<String> = findings(&output.unwrap())
        .iter()
        .map(|finding| finding["line"].as_str().unwrap().to_owned())
        .collect();
    let mut known: Vec<String> = MUTATIONS
        .iter()
        .chain(&LIMITS)
        .map(|(line, _)| *line)
        .chain(BY_CONSTRUCTION.iter().map(|(line, _)| *line))
        .chain(WORKS)
        .map(str::to_owned)
        .collect();
    known.sort();
    known.dedup();
    lines.sort();
    assert_eq!(lines, known);
}

#[tokio::test]
async fn every_line_holds_as_root() {
    let output = doctor(&mut Command::new(e2e::program())).output().await.unwrap();
    for finding in findings(&output) {
        assert_eq!(finding["verdict"], "holds", "{finding}");
    }
    assert!(output.status.success());
}

#[tokio::test]
async fn every_line_holds_as_an_ordinary_user() {
    assert!(can_become(), "this test begins as root");
    let delegated = Delegated::new();
    let output = doctor(&mut delegated.command(&program("agentjail"))).output().await.unwrap();
    for finding in findings(&output) {
        assert_eq!(finding["verdict"], "holds", "{finding}");
    }
    assert!(output.status.success());
}

async fn breaks(mut command: Command, line: &str, without: &[&str]) -> Value {
    doctor(&mut command).args(["--only", line]);
    for name in without {
        command.args(["--without", name]);
    }
    let output = command.output().await.unwrap();
    findings(&output)[0].clone()
}

#[tokio::test]
async fn each_line_breaks_without_its_protection_as_root() {
    for (line, without) in MUTATIONS.iter().chain(&LIMITS) {
        let finding = breaks(Command::new(e2e::mutations()), line, without).await;
        assert_eq!(finding["verdict"], "broken", "{finding} without {without:?}");
    }
}

#[tokio::test]
async fn each_line_breaks_without_its_protection_as_an_ordinary_user() {
    assert!(can_become(), "this test begins as root");
    let delegated = Delegated::new();
    let program = program("agentjail-mutations");
    for (line, without) in MUTATIONS.iter().chain(&LIMITS) {
        let finding = breaks(delegated.command(&program), line, without).await;
        assert_eq!(finding["verdict"], "broken", "{finding} without {without:?}");
    }
}

/// The switches are in a build for tests only.
#[tokio::test]
async fn the_program_has_no_switch_to_weaken_it() {
    let mut command = Command::new(e2e::program());
    doctor(&mut command).args(["--without", "seccomp"]);
    assert_eq!(command.output().await.unwrap().status.code(), Some(2));
}
