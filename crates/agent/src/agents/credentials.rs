//! Credentials of coding agents, as far as they can be found: that they are there, never what they are.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::wire::now_ms;

/// Bytes of a file that is looked into.
const LARGEST: u64 = 4 * 1024 * 1024;

/// A key or a token. It prints itself nowhere; [`Credential::reveal`] is for the one command that tells it.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    value: String,
    /// `environment`, or the file it was found in.
    pub source: String,
    /// `api_key` or `oauth`
    pub kind: &'static str,
}

impl fmt::Debug for Credential {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "[credential from {}]", self.source)
    }
}

impl Credential {
    /// The credential in clear.
    pub fn reveal(&self) -> &str {
        &self.value
    }

    /// Enough of it to tell it from others.
    pub fn redacted(&self) -> String {
        let all: Vec<char> = self.value.chars().collect();
        if all.len() <= 8 {
            return "****".to_owned();
        }
        let start: String = all[..4].iter().collect();
        let end: String = all[all.len() - 4..].iter().collect();
        format!("{start}...{end}")
    }
}

/// What was found, by provider.
pub type Credentials = BTreeMap<String, Credential>;

/// Where variables tell a credential: the provider, and what kind it is.
const VARIABLES: [(&str, &str, &str); 11] = [
    ("ANTHROPIC_API_KEY", "anthropic", "api_key"),
    ("CLAUDE_API_KEY", "anthropic", "api_key"),
    ("CLAUDE_CODE_OAUTH_TOKEN", "anthropic", "oauth"),
    ("ANTHROPIC_AUTH_TOKEN", "anthropic", "oauth"),
    ("OPENAI_API_KEY", "openai", "api_key"),
    ("CODEX_API_KEY", "openai", "api_key"),
    ("GEMINI_API_KEY", "gemini", "api_key"),
    ("GOOGLE_API_KEY", "gemini", "api_key"),
    ("CURSOR_API_KEY", "cursor", "api_key"),
    ("AMP_API_KEY", "amp", "api_key"),
    ("OPENROUTER_API_KEY", "openrouter", "api_key"),
];

/// Looks in an environment, then in files below a home. The first that is found of a provider counts.
pub fn find(home: &Path, environment: &BTreeMap<String, String>, oauth: bool) -> Credentials {
    let mut found = Found { all: Credentials::new(), oauth };
    for (name, provider, kind) in VARIABLES {
        if let Some(value) = environment.get(name) {
            found.add(provider, kind, "environment", value);
        }
    }
    amp(home, &mut found);
    claude(home, &mut found);
    codex(home, &mut found);
    opencode(home, &mut found);
    found.all
}

struct Found {
    all: Credentials,
    oauth: bool,
}

impl Found {
    fn add(&mut self, provider: &str, kind: &'static str, source: &str, value: &str) {
        let value = value.trim();
        if value.is_empty() || (kind == "oauth" && !self.oauth) {
            return;
        }
        self.all.entry(provider.to_owned()).or_insert_with(|| Credential {
            value: value.to_owned(),
            source: source.to_owned(),
            kind,
        });
    }
}

/// A JSON file; one that is missing or malformed is passed over.
fn json(home: &Path, name: &str) -> Option<Value> {
    let path = home.join(name);
    let about = fs::metadata(&path).ok()?;
    if !about.is_file() || about.len() > LARGEST {
        return None;
    }
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

fn amp(home: &Path, found: &mut Found) {
    const NAME: &str = ".amp/config.json";
    const KEYS: [&str; 7] = [
        "anthropicApiKey",
        "anthropic_api_key",
        "apiKey",
        "api_key",
        "accessToken",
        "access_token",
        "token",
    ];
    let Some(config) = json(home, NAME) else { return };
    for place in [&config, &config["auth"], &config["anthropic"]] {
        for key in KEYS {
            if let Some(value) = place[key].as_str() {
                found.add("anthropic", "api_key", NAME, value);
                found.add("amp", "api_key", NAME, value);
            }
        }
    }
}

fn claude(home: &Path, found: &mut Found) {
    for name in [".claude.json.api", ".claude.json", ".claude.json.nathan"] {
        let Some(config) = json(home, name) else { continue };
        for key in ["primaryApiKey", "apiKey", "anthropicApiKey", "customApiKey"] {
            if let Some(value) = config[key].as_str().filter(|value| value.starts_with("sk-ant-")) {
                found.add("anthropic", "api_key", name, value);
            }
        }
    }
    for name in [".claude/.credentials.json", ".claude-oauth-credentials.json"] {
        let Some(config) = json(home, name) else { continue };
        let oauth = &config["claudeAiOauth"];
        if let Some(value) = oauth["accessToken"].as_str()
            && !has_expired(&oauth["expiresAt"])
        {
            found.add("anthropic", "oauth", name, value);
        }
    }
}

fn codex(home: &Path, found: &mut Found) {
    const NAME: &str = ".codex/auth.json";
    let Some(config) = json(home, NAME) else { return };
    if let Some(value) = config["OPENAI_API_KEY"].as_str() {
        found.add("openai", "api_key", NAME, value);
    }
    if let Some(value) = config["tokens"]["access_token"].as_str() {
        found.add("openai", "oauth", NAME, value);
    }
}

fn opencode(home: &Path, found: &mut Found) {
    const NAME: &str = ".local/share/opencode/auth.json";
    let Some(Value::Object(providers)) = json(home, NAME) else { return };
    for (provider, config) in providers {
        match config["type"].as_str() {
            Some("api") => {
                found.add(&provider, "api_key", NAME, config["key"].as_str().unwrap_or_default());
            }
            Some("oauth") if !has_expired(&config["expires"]) => {
                found.add(&provider, "oauth", NAME, config["access"].as_str().unwrap_or_default());
            }
            _ => {}
        }
    }
}

/// Dates are text in some files and milliseconds in others. One that cannot be read has not expired: the
/// agent will say so.
fn has_expired(at: &Value) -> bool {
    let now = now_ms();
    match at {
        Value::Number(ms) => ms.as_u64().is_some_and(|ms| ms > 0 && ms < now),
        Value::String(text) => text
            .parse::<jiff::Timestamp>()
            .is_ok_and(|at| u64::try_from(at.as_millisecond()).unwrap_or_default() < now),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_empty_expired_or_malformed_does_not_count() {
        let home = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = home.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let none = BTreeMap::from([("ANTHROPIC_API_KEY".to_owned(), String::new())]);
        write(
            ".claude/.credentials.json",
            r#"{"claudeAiOauth":{"accessToken":"t","expiresAt":1000}}"#,
        );
        write(".codex/auth.json", "{ not JSON");
        assert!(find(home.path(), &none, true).is_empty());
        write(
            ".claude/.credentials.json",
            r#"{"claudeAiOauth":{"accessToken":"token-of-some-length","expiresAt":99999999999999}}"#,
        );
        write(
            ".local/share/opencode/auth.json",
            r#"{"openai":{"type":"api","key":"sk-1234567890"}}"#,
        );
        let found = find(home.path(), &none, true);
        assert_eq!(found["anthropic"].kind, "oauth");
        assert_eq!(found["openai"].redacted(), "sk-1...7890");
        assert!(!format!("{found:?}").contains("token-of"));
        assert!(!find(home.path(), &none, false).contains_key("anthropic"));
    }
}
