//! A server for tools: what is accepted, and what an agent is given.

use serde_json::{Map, Value, json};

use crate::config::Environment;
use crate::problem::Problem;

/// Names that mean the same, and the one that is kept.
const ALIASES: [(&str, &str); 5] = [
    ("environment", "env"),
    ("timeout", "timeoutMs"),
    ("bearer_token_env_var", "bearerTokenEnvVar"),
    ("envHttpHeaders", "envHeaders"),
    ("env_http_headers", "envHeaders"),
];

/// A server as it is kept. What is not known of it stays.
pub(super) fn checked(value: Value) -> Result<Value, Problem> {
    let Value::Object(mut server) = value else {
        return Err(Problem::invalid("the body must be a JSON object"));
    };
    for (alias, name) in ALIASES {
        if let Some(value) = server.remove(alias) {
            server.entry(name).or_insert(value);
        }
    }
    let kind = match server.get("type").and_then(Value::as_str) {
        Some("local" | "stdio") => "local",
        Some("remote" | "http" | "sse" | "streamable_http") => "remote",
        Some(other) => {
            return Err(Problem::invalid(format!(
                "type must be one of: local, remote; not {other}"
            )));
        }
        None if server.contains_key("url") => "remote",
        None if server.contains_key("command") => "local",
        None => return Err(Problem::invalid("missing field `type`: local or remote")),
    };
    if kind == "local" {
        let command = &server.get("command").cloned().unwrap_or_default();
        let has_text = |value: &Value| value.as_str().is_some_and(|text| !text.trim().is_empty());
        let given = has_text(command)
            || command.as_array().is_some_and(|words| words.first().is_some_and(has_text));
        if !given {
            return Err(Problem::invalid("missing field `command`: a program, or a list of words"));
        }
        strings(&server, "args")?;
        texts(&server, "env")?;
    } else {
        let url = server.get("url").and_then(Value::as_str).unwrap_or_default();
        if !url.starts_with("http://") && !url.starts_with("https://") {
            return Err(Problem::invalid("missing field `url`: http:// or https://"));
        }
        texts(&server, "headers")?;
        texts(&server, "envHeaders")?;
        match server.get("transport").and_then(Value::as_str) {
            None | Some("http" | "sse") => {}
            Some("streamable_http" | "streamable-http") => {
                server.insert("transport".to_owned(), "http".into());
            }
            Some(other) => {
                return Err(Problem::invalid(format!(
                    "transport must be one of: http, sse; not {other}"
                )));
            }
        }
    }
    server.insert("type".to_owned(), kind.into());
    // What clients write for what they leave out.
    server.retain(|_, value| !value.is_null());
    Ok(Value::Object(server))
}

fn strings(server: &Map<String, Value>, name: &str) -> Result<(), Problem> {
    match server.get(name) {
        None | Some(Value::Null) => Ok(()),
        Some(Value::Array(all)) if all.iter().all(Value::is_string) => Ok(()),
        Some(_) => Err(Problem::invalid(format!("{name} must be a list of strings"))),
    }
}

fn texts(server: &Map<String, Value>, name: &str) -> Result<(), Problem> {
    match server.get(name) {
        None | Some(Value::Null) => Ok(()),
        Some(Value::Object(all)) if all.values().all(Value::is_string) => Ok(()),
        Some(_) => Err(Problem::invalid(format!("{name} must be an object of strings"))),
    }
}

/// Adds what is configured, in ACP's shape, unless a server of that name is there already.
pub(super) fn for_an_agent(
    all: &Map<String, Value>,
    environment: &Environment,
    servers: &mut Vec<Value>,
) {
    for (name, server) in all {
        // Configured without a name: the object holds the servers.
        let nested = server.get("servers").or(server.get("mcpServers"));
        match (name.as_str(), nested) {
            (super::DEFAULT, Some(Value::Object(inner))) => {
                for_an_agent(inner, environment, servers);
            }
            (super::DEFAULT, Some(Value::Array(inner))) => {
                let named = inner
                    .iter()
                    .filter_map(|one| Some((one["name"].as_str()?.to_owned(), one.clone())));
                for_an_agent(&named.collect(), environment, servers);
            }
            _ => {
                let known = servers.iter().any(|known| known["name"] == name.as_str());
                if let (false, Some(told)) = (known, told(name, server, environment)) {
                    servers.push(told);
                }
            }
        }
    }
}

fn told(name: &str, server: &Value, environment: &Environment) -> Option<Value> {
    let server = checked(server.clone()).ok()?;
    if server["enabled"] == false {
        return None;
    }
    let pairs = |member: &str| -> Vec<(String, String)> {
        let all = server[member].as_object().into_iter().flatten();
        all.map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned()))
            .collect()
    };
    let named = |pairs: Vec<(String, String)>| -> Vec<Value> {
        pairs.into_iter().map(|(name, value)| json!({ "name": name, "value": value })).collect()
    };
    if server["type"] == "local" {
        let mut words: Vec<Value> = match &server["command"] {
            Value::Array(words) => words.clone(),
            word => vec![word.clone()],
        };
        let command = words.remove(0);
        words.extend(server["args"].as_array().cloned().unwrap_or_default());
        return Some(
            json!({ "name": name, "command": command, "args": words, "env": named(pairs("env")) }),
        );
    }
    // Only what was declared for the sandbox: whoever can write a configuration would else have any variable of the
    // server's sent wherever he likes.
    let variable = |name: &str| environment.base.get(name).cloned();
    let mut headers = pairs("headers");
    for (header, from) in pairs("envHeaders") {
        headers.extend(variable(&from).map(|value| (header, value)));
    }
    if let Some(token) = server["bearerTokenEnvVar"].as_str().and_then(variable) {
        headers.push(("Authorization".to_owned(), format!("Bearer {token}")));
    }
    let transport = server["transport"].as_str().unwrap_or("http");
    Some(
        json!({ "type": transport, "name": name, "url": server["url"], "headers": named(headers) }),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_write_is_read_and_the_rest_is_told() {
        let kept = checked(json!({ "type": "stdio", "command": ["npx", "-y", "x"], "args": null,
            "environment": { "A": "1" }, "mine": 1 }));
        assert_eq!(
            kept.unwrap(),
            json!({ "type": "local", "command": ["npx", "-y", "x"], "env": { "A": "1" }, "mine": 1 })
        );
        let remote = json!({ "type": "http", "url": "http://x", "transport": "streamable_http" });
        assert_eq!(checked(remote).unwrap()["transport"], "http");
        for wrong in [
            json!([]),
            json!({ "type": "remote" }),
            json!({ "type": "local" }),
            json!({ "type": "local", "command": "x", "args": "y" }),
            json!({ "type": "elsewhere" }),
            json!({ "type": "remote", "url": "http://x", "transport": "smoke" }),
        ] {
            assert!(checked(wrong.clone()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_agent_is_told_in_its_own_words() {
        let mut environment = Environment::default();
        environment.base.insert("KEY".to_owned(), "k".to_owned());
        environment.server.insert("GONE".to_owned(), "the server's own".to_owned());
        let all = json!({
            "a": { "type": "local", "command": "run", "args": ["x"], "env": { "E": "1" } },
            "b": { "type": "remote", "url": "http://h", "bearerTokenEnvVar": "KEY", "envHeaders": { "X": "GONE" } },
            "c": { "type": "remote", "url": "http://h", "enabled": false },
            "default": { "servers": { "d": { "type": "remote", "url": "http://d", "transport": "sse" } } },
        });
        let mut servers = Vec::new();
        for_an_agent(all.as_object().unwrap(), &environment, &mut servers);
        assert_eq!(
            servers,
            [
                json!({ "name": "a", "command": "run", "args": ["x"], "env": [{ "name": "E", "value": "1" }] }),
                json!({ "type": "http", "name": "b", "url": "http://h",
                "headers": [{ "name": "Authorization", "value": "Bearer k" }] }),
                json!({ "type": "sse", "name": "d", "url": "http://d", "headers": [] }),
            ]
        );
    }
}
