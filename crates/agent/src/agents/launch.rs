//! How an agent is started: its program, and what it is told of models and keys.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::registry::{self, Agent};
use super::{Agents, install};
use crate::blocking::blocking;
use crate::problem::{Code, Problem};

/// A program that speaks ACP on its standard streams.
#[derive(Debug, Clone)]
pub(crate) struct Launch {
    pub(crate) command: String,
    pub(crate) args: Vec<String>,
    agent: &'static str,
    home: PathBuf,
    data: PathBuf,
}

impl Agents {
    /// How to start an agent, which is installed first if it is not there and may be.
    pub(crate) async fn launch(&self, agent: &str) -> Result<Launch, Problem> {
        let found = registry::find(agent).ok_or_else(|| Problem::unsupported_agent(agent))?;
        if let Some(launch) = self.installed(found).await {
            return Ok(launch);
        }
        if self.inner.preinstalled_only {
            let text = format!(
                "{agent} is not installed, and this server installs none by itself: \
                 `sandbox-agent install-agent {agent}`, or for jails `agentjail agents install {agent}`"
            );
            return Err(Problem::new(Code::AgentNotInstalled, text).with("agent", agent));
        }
        self.install(agent, install::Versions::default(), false).await?.await?;
        match self.installed(found).await {
            Some(launch) => Ok(launch),
            None => {
                let text = format!("{agent} has no adapter for ACP that could be installed");
                Err(Problem::new(Code::AgentNotInstalled, text).with("agent", agent))
            }
        }
    }

    /// How to start an agent, if it is there: by our launcher, or as others have installed it.
    pub(super) async fn installed(&self, agent: &'static Agent) -> Option<Launch> {
        let launch = |command: String, args: Vec<String>| Launch {
            command,
            args,
            agent: &agent.id,
            home: self.inner.home.clone(),
            data: self.inner.bin.clone(),
        };
        if agent.id == "mock" {
            let (program, args) = &self.inner.mock;
            return Some(launch(program.display().to_string(), args.clone()));
        }
        let launcher = self.launcher(&agent.id);
        let path = self.inner.environment.base.get("PATH").cloned().unwrap_or_default();
        let command = agent.command.clone();
        blocking(move || {
            if launcher.is_file() {
                return Some((launcher.display().to_string(), Vec::new()));
            }
            let (name, args) = command.split_first()?;
            let mut places = path.split(':').filter(|place| place.starts_with('/'));
            places
                .any(|place| Path::new(place).join(name).is_file())
                .then(|| (name.clone(), args.to_vec()))
        })
        .await
        .map(|(command, args)| launch(command, args))
    }

    pub(super) fn launcher(&self, agent: &str) -> PathBuf {
        self.inner.bin.join("agent_processes").join(format!("{agent}-acp"))
    }
}

impl Launch {
    /// What an agent is given of the server's environment: what is its provider's, and what it needs to
    /// find its model where that is told in other words than its own.
    pub(crate) fn environment(
        &self,
        server: &BTreeMap<String, String>,
    ) -> BTreeMap<String, String> {
        let Some(agent) = registry::find(self.agent) else { return BTreeMap::new() };
        let of_it =
            |name: &str| agent.variables.iter().any(|start| name.starts_with(start.as_str()));
        let mut env: BTreeMap<String, String> = server
            .iter()
            .filter(|(name, value)| of_it(name) && !value.is_empty())
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        env.extend(agent.export.clone());
        if agent.id == "mock" {
            let state = self.data.with_file_name("mock-sessions").display().to_string();
            env.insert("MOCK_AGENT_STATE".to_owned(), state);
        }
        env
    }

    /// Adds what an agent wants in its own words, once its whole environment is known.
    pub(crate) fn translate(&self, env: &mut BTreeMap<String, String>) {
        match self.agent {
            "codex" => codex(env),
            "opencode" => opencode(env),
            // Without a model it asks another one which to take, for minutes.
            "gemini" if env.contains_key("GOOGLE_GEMINI_BASE_URL") => {
                env.entry("GEMINI_MODEL".to_owned())
                    .or_insert_with(|| "gemini-2.5-flash".to_owned());
            }
            "pi" => {
                // Installed by others, it is on the search path.
                let program = self.data.join("pi");
                if program.is_file() {
                    env.entry("PI_ACP_PI_COMMAND".to_owned())
                        .or_insert(program.display().to_string());
                }
                pi(env, &self.home);
            }
            _ => {}
        }
    }
}

/// Codex does not read `OPENAI_BASE_URL`: it wants a provider.
fn codex(env: &mut BTreeMap<String, String>) {
    let Some(base) = env.get("OPENAI_BASE_URL").filter(|base| !base.is_empty()) else { return };
    if env.contains_key("CODEX_CONFIG") {
        return;
    }
    let provider = json!({
        "name": "sandbox", "base_url": base.trim_end_matches('/'), "env_key": "OPENAI_API_KEY",
        "wire_api": "responses",
    });
    let config = json!({ "model_provider": "sandbox", "model_providers": { "sandbox": provider } });
    env.insert("CODEX_CONFIG".to_owned(), config.to_string());
}

/// `OpenCode` wants Anthropic's base URL with `/v1` at its end; Claude, whose variable it is, without.
fn opencode(env: &mut BTreeMap<String, String>) {
    if let Some(base) = env.get_mut("ANTHROPIC_BASE_URL")
        && !base.is_empty()
        && !base.trim_end_matches('/').ends_with("/v1")
    {
        *base = format!("{}/v1", base.trim_end_matches('/'));
    }
    let steered =
        ["ANTHROPIC_BASE_URL", "OPENAI_BASE_URL"].iter().any(|name| env.contains_key(*name));
    let given = env.get("OPENCODE_CONFIG_CONTENT").map_or("{}", String::as_str);
    let Ok(serde_json::Value::Object(mut config)) = serde_json::from_str(given) else { return };
    // Left to itself it asks a model that its maker hosts.
    let chosen = ["model", "enabled_providers", "disabled_providers"];
    if steered && !chosen.iter().any(|name| config.contains_key(*name)) {
        config.insert("disabled_providers".to_owned(), json!(["opencode"]));
        env.insert(
            "OPENCODE_CONFIG_CONTENT".to_owned(),
            serde_json::Value::Object(config).to_string(),
        );
    }
}

/// pi reads base URLs from a file of its own, which is made if it is not there, or was made by us.
fn pi(env: &BTreeMap<String, String>, home: &Path) {
    let home = env.get("HOME").map_or(home, |home| Path::new(home.as_str()));
    let file = home.join(".pi/agent/models.json");
    let url = |name: &str| env.get(name).filter(|url| !url.is_empty());
    let mut providers = serde_json::Map::new();
    for (provider, name) in [("anthropic", "ANTHROPIC_BASE_URL"), ("openai", "OPENAI_BASE_URL")] {
        if let Some(url) = url(name) {
            providers.insert(provider.to_owned(), json!({ "baseUrl": url }));
        }
    }
    if providers.is_empty() || std::fs::read(&file).is_ok_and(|text| !is_ours(&text)) {
        return;
    }
    let text = json!({ "providers": providers }).to_string();
    // Without it pi asks its provider's own server, which a closed sandbox refuses in plain words.
    let made = file.parent().map_or(Ok(()), std::fs::create_dir_all);
    if let Err(error) = made.and_then(|()| std::fs::write(&file, text)) {
        tracing::warn!(%error, "{} could not be written", file.display());
    }
}

/// Whether a file says no more than where providers are.
fn is_ours(text: &[u8]) -> bool {
    let config: serde_json::Value = serde_json::from_slice(text).unwrap_or_default();
    let only = |value: &serde_json::Value, name: &str| {
        value.as_object().is_some_and(|all| all.keys().all(|key| key == name))
    };
    let providers = config["providers"].as_object();
    only(&config, "providers")
        && providers.is_some_and(|all| all.values().all(|provider| only(provider, "baseUrl")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launch(agent: &str) -> Launch {
        let agent = &registry::find(agent).unwrap().id;
        Launch {
            command: String::new(),
            args: Vec::new(),
            agent,
            home: "/h".into(),
            data: "/d/bin".into(),
        }
    }

    #[test]
    fn an_agent_sees_its_providers_variables_and_no_others() {
        let server: BTreeMap<String, String> = [
            ("ANTHROPIC_API_KEY", "a"),
            ("OPENAI_API_KEY", "o"),
            ("AWS_SECRET_ACCESS_KEY", "w"),
            ("CLAUDE_API_KEY", ""),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
        let claude = launch("claude").environment(&server);
        assert_eq!(claude["ANTHROPIC_API_KEY"], "a");
        assert!(
            !claude.contains_key("OPENAI_API_KEY") && !claude.contains_key("AWS_SECRET_ACCESS_KEY")
        );
        assert!(!claude.contains_key("CLAUDE_API_KEY"));
        assert!(!launch("codex").environment(&server).contains_key("ANTHROPIC_API_KEY"));
    }

    #[test]
    fn a_base_url_is_told_in_each_agents_words() {
        let mut env = BTreeMap::from([("OPENAI_BASE_URL".to_owned(), "http://m/v1".to_owned())]);
        launch("codex").translate(&mut env);
        assert!(env["CODEX_CONFIG"].contains("\"base_url\":\"http://m/v1\""));
        let mut env = BTreeMap::from([("ANTHROPIC_BASE_URL".to_owned(), "http://m/a".to_owned())]);
        launch("opencode").translate(&mut env);
        assert_eq!(env["ANTHROPIC_BASE_URL"], "http://m/a/v1");
        assert!(env["OPENCODE_CONFIG_CONTENT"].contains("disabled_providers"));
    }
}
