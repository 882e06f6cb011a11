//! The data about agents, read once.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;

/// An agent.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Agent {
    pub(super) id: String,
    /// Those it has of the eighteen.
    pub(super) capabilities: Vec<String>,
    /// Providers, of which one is enough. None: it needs nothing.
    pub(super) credentials: Vec<String>,
    /// Beginnings of the variables of the server's environment that it may see.
    pub(super) variables: Vec<String>,
    /// Variables it is always given.
    #[serde(default)]
    pub(super) export: BTreeMap<String, String>,
    pub(super) native: Option<Part>,
    pub(super) adapter: Option<Part>,
    /// How its adapter is called where it was installed by others.
    pub(super) command: Vec<String>,
    /// Where it looks for skills, from the working directory on.
    pub(super) skills: Option<String>,
}

/// Something of it that is installed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Part {
    pub(super) name: Option<String>,
    pub(super) package: String,
    /// Below `node_modules`; `{arch}` is npm's word for the processor.
    pub(super) program: String,
    /// Run by Node.
    #[serde(default)]
    pub(super) node: bool,
    #[serde(default)]
    pub(super) args: Vec<String>,
}

impl Part {
    pub(super) fn program(&self) -> String {
        let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "x64" };
        self.program.replace("{arch}", arch)
    }
}

static AGENTS: LazyLock<Vec<Agent>> = LazyLock::new(|| {
    serde_json::from_str(include_str!("registry.json")).expect("the registry is checked by a test")
});

/// What can be said of an agent, in the order of the contract.
pub(super) const CAPABILITIES: [&str; 18] = [
    "planMode",
    "permissions",
    "questions",
    "toolCalls",
    "toolResults",
    "textMessages",
    "images",
    "fileAttachments",
    "sessionLifecycle",
    "errorEvents",
    "reasoning",
    "status",
    "commandExecution",
    "fileChanges",
    "mcpTools",
    "streamingDeltas",
    "itemStarted",
    "sharedProcess",
];

pub(super) fn all() -> &'static [Agent] {
    &AGENTS
}

pub(super) fn find(id: &str) -> Option<&'static Agent> {
    AGENTS.iter().find(|agent| agent.id == id)
}

/// The agents' names.
pub fn ids() -> impl Iterator<Item = &'static str> {
    AGENTS.iter().map(|agent| agent.id.as_str())
}

/// Where an agent looks for skills, from the working directory on.
pub(crate) fn skills_directory(id: &str) -> Option<&'static str> {
    find(id)?.skills.as_deref()
}

/// What is installed of an agent: names, versions and hashes of all packages.
pub(super) fn lock(id: &str) -> Option<&'static str> {
    match id {
        "claude" => Some(include_str!("locks/claude.json")),
        "codex" => Some(include_str!("locks/codex.json")),
        "opencode" => Some(include_str!("locks/opencode.json")),
        "amp" => Some(include_str!("locks/amp.json")),
        "pi" => Some(include_str!("locks/pi.json")),
        "cursor" => Some(include_str!("locks/cursor.json")),
        "gemini" => Some(include_str!("locks/gemini.json")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registry_can_be_read_and_all_in_it_is_locked() {
        assert!(find("claude").is_some());
        for agent in all() {
            for capability in &agent.capabilities {
                assert!(CAPABILITIES.contains(&capability.as_str()), "{capability}");
            }
            for part in agent.native.iter().chain(&agent.adapter) {
                let lock: serde_json::Value =
                    serde_json::from_str(lock(&agent.id).unwrap()).unwrap();
                let root = &lock["packages"][""]["dependencies"][&part.package];
                assert!(root.is_string(), "{}: {} is not locked", agent.id, part.package);
                for (name, package) in lock["packages"].as_object().unwrap() {
                    // Packages of other machines are named so that npm knows the lock for whole.
                    let here = |member: &str, word: &str| {
                        let only = package[member].as_array();
                        only.is_none_or(|only| only.iter().any(|one| one == word))
                    };
                    let foreign =
                        !here("os", "linux") || !here("cpu", "x64") || !here("libc", "glibc");
                    let checked = package["integrity"].is_string();
                    assert!(name.is_empty() || foreign || checked, "{name}");
                    assert!(package["resolved"].is_null(), "{name}");
                }
            }
        }
    }
}
