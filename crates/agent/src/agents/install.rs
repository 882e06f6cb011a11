//! Installing an agent: staged, verified, put in place in one step; whoever asks meanwhile joins.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use serde_json::Value;
use tokio::sync::{broadcast, watch};

use super::registry::{self, Agent, Part};
use super::{Agents, npm};
use crate::blocking::blocking;
use crate::problem::{Code, Problem};

/// Lines of progress that may wait for a slow listener; he misses older ones.
const PROGRESS: usize = 256;

/// Versions that somebody wants in place of those that are pinned.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Versions {
    /// Of the agent itself.
    pub native: Option<String>,
    /// Of what makes it speak ACP.
    pub adapter: Option<String>,
}

impl Versions {
    fn are_pinned(&self) -> bool {
        self.native.is_none() && self.adapter.is_none()
    }
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Installed {
    pub already: bool,
    pub artifacts: Vec<Artifact>,
}

/// A program that was installed.
#[derive(Debug, Clone, Serialize)]
pub struct Artifact {
    /// `native_agent` or `agent_process`
    pub kind: &'static str,
    pub path: String,
    /// `registry` or `builtin`
    pub source: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// Why an agent is not installed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum InstallError {
    #[error("there is no agent {0}")]
    Unknown(String),
    #[error(
        "npm is required to install {0}: install Node.js 20 or later with npm, and see that both are on the PATH"
    )]
    NoNpm(String),
    #[error("{package}: a version is expected, like 1.2.3; not {version}")]
    Version { package: String, version: String },
    #[error("npm install failed for {agent}: {said}")]
    Npm { agent: String, said: String },
    #[error("{agent}: {what} is not in what was installed")]
    Incomplete { agent: String, what: String },
    #[error("{agent} could not be put in place: {why}")]
    Disk { agent: String, why: String },
}

impl InstallError {
    fn agent(&self) -> &str {
        match self {
            Self::Unknown(agent) | Self::NoNpm(agent) => agent,
            Self::Npm { agent, .. } | Self::Incomplete { agent, .. } | Self::Disk { agent, .. } => {
                agent
            }
            Self::Version { package, .. } => package,
        }
    }
}

impl From<InstallError> for Problem {
    fn from(error: InstallError) -> Self {
        let text = error.to_string();
        match &error {
            InstallError::Unknown(agent) => Self::unsupported_agent(agent),
            InstallError::Version { .. } => Self::invalid(text),
            _ => Self::new(Code::InstallFailed, text.clone())
                .with("agent", error.agent())
                .with("details", serde_json::json!({ "stderr": text })),
        }
    }
}

type Outcome = Result<Installed, InstallError>;

/// Installs that are under way, by agent.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    running: Mutex<HashMap<String, Job>>,
}

#[derive(Debug, Clone)]
struct Job {
    versions: Versions,
    progress: broadcast::Sender<String>,
    outcome: watch::Receiver<Option<Outcome>>,
}

/// An install that somebody waits for.
#[derive(Debug)]
pub struct Progress {
    lines: broadcast::Receiver<String>,
    outcome: watch::Receiver<Option<Outcome>>,
}

impl Progress {
    /// What it says, as it says it. `None` when it is over.
    pub async fn line(&mut self) -> Option<String> {
        loop {
            tokio::select! {
                biased;
                line = self.lines.recv() => match line {
                    Ok(line) => return Some(line),
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return None,
                },
                _ = self.outcome.wait_for(Option::is_some) => return None,
            }
        }
    }

    /// What came of it. It goes on if nobody waits.
    pub async fn outcome(mut self) -> Outcome {
        match self.outcome.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().unwrap_or_else(|| unreachable!("waited for")),
            Err(_) => Err(InstallError::Disk {
                agent: "the agent".to_owned(),
                why: "the server stops".to_owned(),
            }),
        }
    }
}

impl std::future::IntoFuture for Progress {
    type Output = Outcome;
    type IntoFuture = std::pin::Pin<Box<dyn Future<Output = Outcome> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.outcome())
    }
}

impl Agents {
    /// Installs an agent, or joins who does it already.
    ///
    /// # Errors
    ///
    /// For an agent that is unknown. How the install ends is told by what is given.
    pub async fn install(
        &self,
        agent: &str,
        versions: Versions,
        again: bool,
    ) -> Result<Progress, InstallError> {
        let found = registry::find(agent).ok_or_else(|| InstallError::Unknown(agent.to_owned()))?;
        let (progress, lines) = broadcast::channel(PROGRESS);
        let (tell, outcome) = watch::channel(None);
        let job = Job { versions: versions.clone(), progress: progress.clone(), outcome };
        loop {
            let other = {
                let mut running =
                    self.inner.jobs.running.lock().unwrap_or_else(PoisonError::into_inner);
                match running.get(agent) {
                    Some(other) if other.versions == versions => {
                        let (lines, outcome) = (other.progress.subscribe(), other.outcome.clone());
                        return Ok(Progress { lines, outcome });
                    }
                    Some(other) => Some(other.clone()),
                    None => {
                        running.insert(agent.to_owned(), job.clone());
                        None
                    }
                }
            };
            match other {
                // Other versions: after them.
                Some(mut other) => drop(other.outcome.wait_for(Option::is_some).await),
                None => break,
            }
        }
        let agents = self.clone();
        self.inner.tasks.spawn(async move {
            let outcome = agents.work(found, versions, again, progress).await;
            agents
                .inner
                .jobs
                .running
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(&found.id);
            tell.send_replace(Some(outcome));
        });
        Ok(Progress { lines, outcome: job.outcome })
    }

    async fn work(
        &self,
        agent: &'static Agent,
        versions: Versions,
        again: bool,
        progress: broadcast::Sender<String>,
    ) -> Outcome {
        let say = |text: String| drop(progress.send(text));
        if agent.id == "mock" {
            return Ok(Installed { already: true, artifacts: vec![built_in(&self.inner.mock.0)] });
        }
        let disk = |error: io::Error| InstallError::Disk {
            agent: agent.id.clone(),
            why: error.to_string(),
        };
        let processes = self.inner.bin.join("agent_processes");
        // Other servers may use the same directory: one installs, the others wait, and find it done.
        let lock = {
            let (processes, id) = (processes.clone(), agent.id.clone());
            blocking(move || locked(&processes, &id)).await.map_err(disk)?
        };
        if !again && versions.are_pinned() && self.installed(agent).await.is_some() {
            return Ok(Installed { already: true, artifacts: Vec::new() });
        }
        let stage = processes.join(format!(".stage-{}", agent.id));
        {
            // What an install that was killed has left. npm's cache still has what it had fetched.
            let stage = stage.clone();
            blocking(move || {
                match fs::remove_dir_all(&stage) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
                fs::create_dir_all(&stage)
            })
            .await
            .map_err(disk)?;
        }
        say(format!("installing {}", agent.id));
        let fetch = npm::Fetch {
            spawner: &self.inner.spawner,
            environment: &self.inner.environment,
            registry: self.inner.npm.as_deref(),
            stage: &stage,
        };
        let fetched = fetch.run(agent, &versions, &say).await;
        let done = match fetched {
            Ok(()) => {
                say(format!("putting {} in place", agent.id));
                let (bin, stage) = (self.inner.bin.clone(), stage.clone());
                let seen = self.inner.seen.clone();
                blocking(move || put_in_place(agent, &bin, &stage, seen.as_deref())).await
            }
            Err(error) => Err(error),
        };
        let left = stage.clone();
        drop(blocking(move || fs::remove_dir_all(left)).await);
        drop(lock);
        done.map(|artifacts| Installed { already: false, artifacts })
    }
}

fn built_in(program: &Path) -> Artifact {
    Artifact {
        kind: "agent_process",
        path: program.display().to_string(),
        source: "builtin",
        version: Some("builtin".to_owned()),
    }
}

fn locked(processes: &Path, agent: &str) -> io::Result<File> {
    fs::create_dir_all(processes)?;
    let file =
        File::options().create(true).append(true).open(processes.join(format!(".lock-{agent}")))?;
    file.lock()?;
    Ok(file)
}

/// Puts what was staged where it belongs, and makes the launcher and the native program's name.
fn put_in_place(
    agent: &Agent,
    bin: &Path,
    stage: &Path,
    seen: Option<&Path>,
) -> Result<Vec<Artifact>, InstallError> {
    let disk =
        |error: io::Error| InstallError::Disk { agent: agent.id.clone(), why: error.to_string() };
    let modules = stage.join("node_modules");
    for part in agent.native.iter().chain(&agent.adapter) {
        if !modules.join(part.program()).is_file() {
            return Err(InstallError::Incomplete { agent: agent.id.clone(), what: part.program() });
        }
    }
    let version = |part: &Part| {
        let text = fs::read(modules.join(&part.package).join("package.json")).ok()?;
        let package: Value = serde_json::from_slice(&text).ok()?;
        package["version"].as_str().map(str::to_owned)
    };
    let versions: Vec<_> =
        [&agent.native, &agent.adapter].map(|part| part.as_ref().and_then(version)).into();
    let place = bin.join("agent_processes").join(&agent.id);
    let old = bin.join("agent_processes").join(format!(".old-{}", agent.id));
    drop(fs::remove_dir_all(&old));
    if place.exists() {
        fs::rename(&place, &old).map_err(disk)?;
    }
    fs::rename(stage, &place).map_err(disk)?;
    drop(fs::remove_dir_all(&old));
    let modules = place.join("node_modules");
    // As those see it who will run it.
    let seen_modules =
        seen.unwrap_or(bin).join("agent_processes").join(&agent.id).join("node_modules");
    let mut artifacts = Vec::new();
    if let Some(native) = &agent.native {
        let name = native.name.as_deref().unwrap_or(&agent.id);
        let path = bin.join(name);
        let program = seen_modules.join(native.program());
        if native.node {
            write_script(&path, &script(&[], &program, native)).map_err(disk)?;
        } else {
            executable(&modules.join(native.program())).map_err(disk)?;
            let fresh = bin.join(format!(".{name}.partial"));
            drop(fs::remove_file(&fresh));
            symlink(&program, &fresh).and_then(|()| fs::rename(&fresh, &path)).map_err(disk)?;
        }
        artifacts.push(artifact("native_agent", &path, versions[0].clone()));
    }
    if let Some(adapter) = &agent.adapter {
        let program = seen_modules.join(adapter.program());
        if !adapter.node {
            executable(&modules.join(adapter.program())).map_err(disk)?;
        }
        let path = bin.join("agent_processes").join(format!("{}-acp", agent.id));
        let exports: Vec<(&String, &String)> = agent.export.iter().collect();
        let text = script(&exports, &program, adapter);
        write_script(&path, &text).map_err(disk)?;
        // Its native program may be called the same, and then takes the same words.
        let is_free = |name: &&String| bin.join(name).symlink_metadata().is_err();
        if let Some(command) = agent.command.first().filter(is_free)
            && seen.is_some()
        {
            write_script(&bin.join(command), &text).map_err(disk)?;
        }
        artifacts.push(artifact("agent_process", &path, versions[1].clone()));
    }
    Ok(artifacts)
}

fn artifact(kind: &'static str, path: &Path, version: Option<String>) -> Artifact {
    Artifact { kind, path: path.display().to_string(), source: "registry", version }
}

fn executable(program: &Path) -> io::Result<()> {
    fs::set_permissions(program, fs::Permissions::from_mode(0o755))
}

/// A launcher: what an agent is always given, and the program with its arguments.
fn script(exports: &[(&String, &String)], program: &Path, part: &Part) -> String {
    use std::fmt::Write as _;
    let mut text = "#!/usr/bin/env sh\nset -e\n".to_owned();
    for (name, value) in exports {
        let _ = writeln!(text, "export {name}={}", quoted(value));
    }
    text.push_str("exec ");
    if part.node {
        text.push_str("node ");
    }
    text.push_str(&quoted(&program.display().to_string()));
    for argument in &part.args {
        text.push(' ');
        text.push_str(&quoted(argument));
    }
    text.push_str(" \"$@\"\n");
    text
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

fn write_script(path: &PathBuf, text: &str) -> io::Result<()> {
    let fresh = path.with_extension("partial");
    fs::write(&fresh, text)?;
    executable(&fresh)?;
    fs::rename(fresh, path)
}
