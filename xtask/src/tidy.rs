//! Tidy tests: what the pages say about the tree must be so.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::{command, say};

/// Which crates of ours a crate may name: the table of ARCHITECTURE.md, in the order of the house.
const MAY_USE: [(&str, &[&str]); 18] = [
    ("ids", &[]),
    ("secret", &[]),
    ("mutation", &[]),
    ("sys", &[]),
    ("httpkit", &[]),
    ("launch", &["mutation", "sys"]),
    ("jail", &["ids", "launch", "sys"]),
    ("snapshot", &["ids"]),
    ("store", &["ids", "secret"]),
    ("egress", &["ids", "mutation"]),
    ("phantom", &["httpkit", "ids", "mutation", "secret", "store"]),
    ("control", &["egress", "httpkit", "ids", "jail", "phantom", "secret", "snapshot", "store"]),
    ("agent", &["httpkit", "sys"]),
    ("sandbox-agent", &["agent", "sys"]),
    (
        "agentjail",
        &[
            "control",
            "egress",
            "ids",
            "jail",
            "mutation",
            "phantom",
            "sandbox-agent",
            "secret",
            "snapshot",
            "store",
            "sys",
        ],
    ),
    ("e2e", &[]),
    ("bench", &["jail", "snapshot"]),
    ("xtask", &[]),
];

/// What `launch` must never link: anything that could start a thread.
const NEVER_IN_LAUNCH: [&str; 5] = ["tokio", "serde_json", "tracing", "log", "rayon"];

pub(crate) fn check(root: &Path) -> anyhow::Result<()> {
    say("tidy: crates use what they may, pages say what is so");
    let metadata = metadata()?;
    let used = uses(&metadata);
    for (name, dependencies) in &used {
        let Some((_, allowed)) = MAY_USE.iter().find(|(known, _)| known == name) else {
            bail!("the crate {name} is not in the table of xtask/src/tidy.rs");
        };
        let allowed: BTreeSet<&str> = allowed.iter().copied().collect();
        if let Some(extra) = dependencies.iter().find(|used| !allowed.contains(used.as_str())) {
            bail!("{name} must not use {extra}");
        }
    }
    launch_links_nothing_that_starts_a_thread()?;
    unsafe_is_in_sys_only(root)?;
    the_map_names_every_crate(root, &used)
}

fn metadata() -> anyhow::Result<Value> {
    let output =
        command("cargo").args(["metadata", "--no-deps", "--format-version", "1"]).output()?;
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Crates of ours, and those of ours that they name outside of tests.
fn uses(metadata: &Value) -> BTreeMap<String, BTreeSet<String>> {
    let empty = Vec::new();
    let packages = metadata["packages"].as_array().unwrap_or(&empty);
    let ours: BTreeSet<&str> =
        packages.iter().filter_map(|package| package["name"].as_str()).collect();
    let of = |package: &Value| {
        let dependencies = package["dependencies"].as_array().unwrap_or(&empty);
        let normal = dependencies.iter().filter(|dependency| dependency["kind"].is_null());
        let names = normal.filter_map(|dependency| dependency["name"].as_str());
        names.filter(|name| ours.contains(name)).map(str::to_owned).collect()
    };
    packages
        .iter()
        .filter_map(|package| Some((package["name"].as_str()?.to_owned(), of(package))))
        .collect()
}

fn launch_links_nothing_that_starts_a_thread() -> anyhow::Result<()> {
    let arguments = ["tree", "--package", "launch", "--edges", "normal", "--prefix", "none"];
    let output = command("cargo").args(arguments).output()?;
    let tree = String::from_utf8(output.stdout)?;
    let linked = tree.lines().filter_map(|line| line.split(' ').next());
    let found: Vec<&str> = linked.filter(|name| NEVER_IN_LAUNCH.contains(name)).collect();
    if found.is_empty() { Ok(()) } else { bail!("launch links {}", found.join(", ")) }
}

fn unsafe_is_in_sys_only(root: &Path) -> anyhow::Result<()> {
    for (name, _) in MAY_USE {
        if ["sys", "xtask"].contains(&name) {
            continue;
        }
        let manifest = root.join("crates").join(name).join("Cargo.toml");
        let text = fs::read_to_string(&manifest).with_context(|| manifest.display().to_string())?;
        // The workspace's lints forbid unsafe code, and `forbid` cannot be taken back further down.
        if !text.contains("[lints]\nworkspace = true") {
            bail!("{name} does not take the workspace's lints");
        }
    }
    Ok(())
}

fn the_map_names_every_crate(
    root: &Path,
    used: &BTreeMap<String, BTreeSet<String>>,
) -> anyhow::Result<()> {
    let map = fs::read_to_string(root.join("ARCHITECTURE.md")).context("ARCHITECTURE.md")?;
    match used.keys().find(|name| !map.contains(&format!("`{name}`"))) {
        None => Ok(()),
        Some(name) => bail!("ARCHITECTURE.md does not name the crate `{name}`"),
    }
}
