//! Fetching packages with npm: exactly those that are locked, each checked against its hash; no script of a
//! package is run.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Signal;
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::unix::pipe;
use tokio::time::timeout;

use super::install::{InstallError, Versions};
use super::registry::{self, Agent};
use crate::blocking::blocking;
use crate::config::Environment;
use crate::processes::{Order, SpawnError, Spawner, Stdios, nothing};

/// How long fetching may take.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// Characters of npm's complaint that are told.
const TOLD: usize = 4000;

/// Variables of the server's environment that npm may see: how to reach a registry.
const PASSED: [&str; 12] = [
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "NODE_EXTRA_CA_CERTS",
    "SSL_CERT_FILE",
    "NPM_CONFIG_REGISTRY",
    "npm_config_registry",
    "NPM_CONFIG_USERCONFIG",
    "npm_config_cafile",
];

/// What is needed to fetch.
#[derive(Debug)]
pub(super) struct Fetch<'a> {
    pub(super) spawner: &'a Spawner,
    pub(super) environment: &'a Environment,
    pub(super) registry: Option<&'a str>,
    /// Where packages go: an empty directory.
    pub(super) stage: &'a Path,
}

impl Fetch<'_> {
    /// Fetches what an agent is made of.
    pub(super) async fn run(
        &self,
        agent: &Agent,
        versions: &Versions,
        say: &(dyn Fn(String) + Sync),
    ) -> Result<(), InstallError> {
        let pinned = *versions == Versions::default();
        let (manifest, lock) =
            if pinned { pinned_files(agent)? } else { (chosen(agent, versions)?, None) };
        let stage = self.stage.to_owned();
        let written = blocking(move || {
            std::fs::write(stage.join("package.json"), manifest)?;
            lock.map_or(Ok(()), |lock| std::fs::write(stage.join("package-lock.json"), lock))
        });
        written.await.map_err(|error| InstallError::Disk {
            agent: agent.id.clone(),
            why: error.to_string(),
        })?;
        // `ci` takes what is locked and nothing else, and fails on a hash that is not the locked one.
        self.npm(agent, if pinned { "ci" } else { "install" }, say).await
    }

    async fn npm(
        &self,
        agent: &Agent,
        verb: &str,
        say: &(dyn Fn(String) + Sync),
    ) -> Result<(), InstallError> {
        let failed = |said: String| InstallError::Npm { agent: agent.id.clone(), said };
        let mut args: Vec<String> = [
            verb,
            "--ignore-scripts",
            "--no-audit",
            "--no-fund",
            "--no-update-notifier",
            "--loglevel=http",
            "--prefer-offline",
            "--omit=dev",
            "--logs-max=0",
            "--fetch-retries=1",
            "--fetch-retry-mintimeout=1000",
            "--fetch-retry-maxtimeout=3000",
            "--fetch-timeout=60000",
        ]
        .map(str::to_owned)
        .into();
        args.extend(self.registry.map(|registry| format!("--registry={registry}")));
        let (read, write) =
            pipe_with(PipeFlags::CLOEXEC).map_err(|errno| failed(errno.to_string()))?;
        rustix::io::ioctl_fionbio(&read, true).map_err(|errno| failed(errno.to_string()))?;
        let output =
            pipe::Receiver::from_owned_fd(read).map_err(|error| failed(error.to_string()))?;
        let stdout = write.try_clone().map_err(|error| failed(error.to_string()))?;
        let stdin = nothing().map_err(|error| failed(error.to_string()))?;
        let order = Order {
            command: "npm".to_owned(),
            args,
            cwd: Some(self.stage.to_owned()),
            env: self.env(),
            stdio: Stdios::Apart { stdin, stdout, stderr: write },
        };
        let mut process = self.spawner.spawn(order).await.map_err(|error| match error {
            SpawnError::Command { .. } => InstallError::NoNpm(agent.id.clone()),
            error => failed(error.to_string()),
        })?;
        let mut complaint = String::new();
        let told = async {
            let mut lines = BufReader::new(output).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                if let Some(progress) = progress(&line) {
                    say(progress);
                } else {
                    complain(&mut complaint, &line);
                }
            }
        };
        let ended = timeout(PATIENCE, async { tokio::join!(process.wait(), told).0 }).await;
        match ended {
            Ok(Ok(ended)) if ended.code == Some(0) => Ok(()),
            Ok(_) => Err(failed(complaint.trim().to_owned())),
            Err(_) => {
                process.signal(Signal::KILL);
                Err(failed(format!("it took longer than {PATIENCE:?}")))
            }
        }
    }

    fn env(&self) -> BTreeMap<String, String> {
        let mut env = self.environment.base.clone();
        for name in PASSED {
            if let Some(value) = self.environment.server.get(name) {
                env.insert(name.to_owned(), value.clone());
            }
        }
        env
    }
}

/// Keeps what npm says of why it failed: its errors, not the warnings before them.
fn complain(complaint: &mut String, line: &str) {
    let line = match line.strip_prefix("npm error") {
        Some(error) => error.trim(),
        None if line.starts_with("npm warn") => return,
        None => line.trim(),
    };
    if !line.is_empty() && !line.starts_with("at ") && complaint.len() + line.len() < TOLD {
        complaint.push_str(line);
        complaint.push('\n');
    }
}

/// A line of npm's that tells of a package.
fn progress(line: &str) -> Option<String> {
    let rest = line.strip_prefix("npm http ")?;
    let package =
        rest.split_ascii_whitespace().find(|word| word.starts_with("http") || word.contains("://"));
    Some(match package {
        // Without the registry's address, which may hold a name and a password.
        Some(url) => match url.split_once("://").and_then(|(_, rest)| rest.split_once('/')) {
            Some((_, path)) => format!("fetched {path}"),
            None => "fetched".to_owned(),
        },
        None => rest.to_owned(),
    })
}

fn pinned_files(agent: &Agent) -> Result<(String, Option<String>), InstallError> {
    let incomplete =
        || InstallError::Incomplete { agent: agent.id.clone(), what: "a lock file".to_owned() };
    let lock = registry::lock(&agent.id).ok_or_else(incomplete)?;
    let parsed: serde_json::Value = serde_json::from_str(lock).map_err(|_| incomplete())?;
    let manifest = json!({
        "name": agent.id, "private": true, "dependencies": parsed["packages"][""]["dependencies"],
    });
    Ok((manifest.to_string(), Some(lock.to_owned())))
}

/// A manifest with the versions that somebody wants.
fn chosen(agent: &Agent, versions: &Versions) -> Result<String, InstallError> {
    let (pinned, _) = pinned_files(agent)?;
    let mut manifest: serde_json::Value = serde_json::from_str(&pinned).unwrap_or_default();
    let wanted = [(&agent.native, &versions.native), (&agent.adapter, &versions.adapter)];
    for (part, version) in wanted {
        let (Some(part), Some(version)) = (part, version) else { continue };
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+');
        if version.is_empty() || !version.chars().all(plain) {
            return Err(InstallError::Version {
                package: part.package.clone(),
                version: version.clone(),
            });
        }
        manifest["dependencies"][&part.package] = version.as_str().into();
    }
    Ok(manifest.to_string())
}
