//! Cloning, in a jail.

use std::path::PathBuf;
use std::sync::Arc;

use ids::{SessionId, TenantId};
use jail::Access;
use phantom::Proxy;
use secret::{PhantomToken, Vault};
use store::{JailKind, Token};

use super::spec::Repository;
use crate::config::BaseUrl;
use crate::exec::{
    ExecError, ExecOptions, ExecResult, Executor, Ground, Job, NetworkSpec, Place, Program,
    SessionAccess,
};
use crate::layers::Scratch;

/// How long one clone may take, as told in its error.
const SECONDS: u64 = 60;
const MEMORY_MB: u64 = 512;
const PIDS: u64 = 64;

/// Where in the jail the certificates of private hosts are.
const AUTHORITIES: &str = "agentjail-authorities";

/// Lines of git's complaint that are passed on.
const LINES: usize = 3;

/// Nothing a caller sent is part of the text: it comes in arguments and variables.
const SCRIPT: &str = r#"
set -eu
url=$1 reference=$2 directory=$3 depth=$4
set -- --no-tags --template= -c core.hooksPath=/dev/null
[ "$depth" = 0 ] || set -- "$@" --depth="$depth" --single-branch
case $reference in
'') exec git clone --quiet "$@" -- "$url" "$directory" ;;
esac
if [ "${#reference}" -ge 40 ] && [ -z "$(printf %s "$reference" | tr -d 0-9a-f)" ]; then
    git init --quiet --template= "$directory"
    cd "$directory"
    git remote add origin "$url"
    [ "$depth" = 0 ] && depth=2147483647
    git fetch --quiet --no-tags --depth="$depth" origin "$reference"
    exec git -c advice.detachedHead=false checkout --quiet FETCH_HEAD
fi
exec git -c advice.detachedHead=false clone --quiet --branch="$reference" "$@" -- "$url" "$directory"
"#;

/// Why a repository was not cloned.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CloneError {
    #[error("git clone failed: {said} ({cause})")]
    Failed { said: String, cause: &'static str },
    #[error("git clone timed out ({SECONDS}s)")]
    TimedOut,
    #[error("git.credential: {0}")]
    Credential(String),
    #[error(transparent)]
    Exec(#[from] ExecError),
}

/// What a clone is written into.
#[derive(Debug, Clone)]
pub(crate) struct Destination {
    pub(crate) tenant: TenantId,
    pub(crate) layers: jail::Layers,
    /// Kept until nothing of the jail that writes into it is left.
    pub(crate) tree: Arc<Scratch>,
    /// Of whoever it is for, which will do for the clone; without one, the clone takes its own.
    pub(crate) place: Option<Arc<Place>>,
}

/// Clones. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Cloner(Arc<ClonerParts>);

#[derive(Debug)]
pub(crate) struct ClonerParts {
    pub(crate) executor: Executor,
    pub(crate) proxy: Proxy,
    pub(crate) proxy_url: BaseUrl,
    pub(crate) vault: Arc<Vault>,
    /// A directory with `ca.pem`: more authorities than the machine's own.
    pub(crate) authorities: Option<PathBuf>,
}

/// Tokens that end with the clone they were minted for.
struct Lent {
    proxy: Proxy,
    session: SessionId,
    environment: Vec<(String, String)>,
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.proxy.book().withdraw(&self.session);
    }
}

impl Cloner {
    pub(crate) fn new(parts: ClonerParts) -> Self {
        Self(Arc::new(parts))
    }

    /// Clones all, one after the other.
    pub(crate) async fn clone_all(
        &self,
        repositories: &[Repository],
        to: &Destination,
    ) -> Result<(), CloneError> {
        for repository in repositories {
            self.clone_one(repository, to).await?;
        }
        Ok(())
    }

    async fn clone_one(&self, repository: &Repository, to: &Destination) -> Result<(), CloneError> {
        let lent = repository.credential.as_deref().map(|name| self.lend(name, repository, to));
        let lent = lent.transpose()?;
        let domain = format!("{}:{}", repository.host, repository.port);
        let network = match &lent {
            // Through the phantom proxy, and no other way.
            Some(_) => NetworkSpec::None,
            None => NetworkSpec::Allowlist { domains: vec![domain], limits: None },
        };
        let options = ExecOptions {
            timeout_secs: Some(SECONDS),
            memory_mb: Some(MEMORY_MB),
            max_pids: Some(PIDS),
            network: Some(network),
            ..ExecOptions::default()
        };
        let settings = options
            .settings(self.0.executor.config())
            .map_err(|error| CloneError::Credential(error.text().to_owned()))?;
        let directory = match &repository.directory {
            Some(directory) => format!("/workspace/{directory}"),
            None => "/workspace".to_owned(),
        };
        let arguments = vec![
            "-c".to_owned(),
            SCRIPT.to_owned(),
            "clone".to_owned(),
            repository.url.clone(),
            repository.reference.clone().unwrap_or_default(),
            directory,
            repository.depth.to_string(),
        ];
        let program = Program::Command { program: "sh".to_owned(), arguments };
        let label = format!("git clone {}", repository.url);
        let job = Job {
            listed: false,
            place: to.place.as_deref().map(Place::share),
            ground: Ground::Layered { layers: to.layers.clone(), workspace: Access::ReadWrite },
            environment: self.environment(lent.as_ref()),
            directories: self
                .0
                .authorities
                .iter()
                .map(|path| (AUTHORITIES.to_owned(), path.clone()))
                .collect(),
            session: lent
                .as_ref()
                .map(|lent| SessionAccess { id: lent.session.clone(), environment: Vec::new() }),
            ..Job::new(to.tenant.clone(), JailKind::Workspace, label, program, settings)
        };
        let mut job = job;
        job.held.keep(Arc::clone(&to.tree));
        let result = self.0.executor.run(job).await?;
        drop(lent);
        judge(&result, repository)
    }

    fn environment(&self, lent: Option<&Lent>) -> Vec<(String, String)> {
        let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mut environment = vec![
            variable("HOME", "/tmp"),
            variable("GIT_TERMINAL_PROMPT", "0"),
            variable("GIT_CONFIG_NOSYSTEM", "1"),
            variable("GIT_CONFIG_GLOBAL", "/dev/null"),
            variable("GIT_ASKPASS", "/bin/true"),
            variable("GIT_SSH_COMMAND", "/bin/false"),
            variable("GIT_LFS_SKIP_SMUDGE", "1"),
        ];
        if self.0.authorities.is_some() {
            let path = format!("/opt/flavors/{AUTHORITIES}/ca.pem");
            environment.push(("GIT_SSL_CAINFO".to_owned(), path));
        }
        let mut settings = vec![
            variable("core.fsmonitor", "false"),
            variable("core.hooksPath", "/dev/null"),
            variable("transfer.fsckObjects", "true"),
            variable("http.followRedirects", "false"),
            variable("protocol.allow", "never"),
            variable("protocol.https.allow", "always"),
            variable("submodule.recurse", "false"),
        ];
        settings.extend(lent.iter().flat_map(|lent| lent.environment.clone()));
        environment.push(("GIT_CONFIG_COUNT".to_owned(), settings.len().to_string()));
        for (n, (key, value)) in settings.into_iter().enumerate() {
            environment.push((format!("GIT_CONFIG_KEY_{n}"), key));
            environment.push((format!("GIT_CONFIG_VALUE_{n}"), value));
        }
        environment
    }

    /// A phantom token for one repository, and how git comes to use it.
    fn lend(
        &self,
        name: &str,
        repository: &Repository,
        to: &Destination,
    ) -> Result<Lent, CloneError> {
        let refused = |text: String| CloneError::Credential(text);
        let shown: String = name.chars().take(64).collect();
        let provider = self.0.proxy.providers().for_git(name, &repository.host);
        let provider = provider.ok_or_else(|| {
            refused(format!("{shown} is no service whose upstream is {}", repository.host))
        })?;
        let has = self.0.proxy.book().has_key(&to.tenant, &provider.keyed_by);
        if !has {
            let (service, tenant) = (&provider.keyed_by, &to.tenant);
            return Err(refused(format!(
                "no credential configured for service {service} (tenant {tenant})"
            )));
        }
        let (session, token) = (SessionId::random(), PhantomToken::random());
        let path = repository.path.trim_end_matches('/').trim_end_matches(".git");
        let minted = Token {
            hash: self.0.vault.token_hash(&token),
            session: session.clone(),
            tenant: to.tenant.clone(),
            key_tenant: to.tenant.clone(),
            service: provider.service.clone(),
            scopes: Some(vec![format!("{path}/*"), format!("{path}.git/*")]),
            expires_at: None,
        };
        let admitted = self.0.proxy.book().admit(vec![minted]);
        admitted.map_err(|error| refused(error.to_string()))?;
        let base = format!("{}/v1/{}", self.0.proxy_url, provider.service);
        let origin = repository.url.strip_suffix(repository.path.as_str()).unwrap_or_default();
        let environment = vec![
            (format!("url.{base}.insteadOf"), origin.to_owned()),
            (
                format!("http.{base}/.extraHeader"),
                format!("Authorization: Bearer {}", token.reveal().expose()),
            ),
            ("protocol.http.allow".to_owned(), "always".to_owned()),
        ];
        Ok(Lent { proxy: self.0.proxy.clone(), session, environment })
    }
}

/// From how git ended to what the caller is told.
fn judge(result: &ExecResult, repository: &Repository) -> Result<(), CloneError> {
    if result.timed_out {
        return Err(CloneError::TimedOut);
    }
    if let Some(error) = &result.error {
        return Err(CloneError::Failed { said: error.clone(), cause: "quota" });
    }
    if result.exit_code == 0 {
        return Ok(());
    }
    let lines: Vec<&str> =
        result.stderr.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let said = lines.iter().rev().take(LINES).copied().collect::<Vec<_>>().join(" \u{b7} ");
    Err(CloneError::Failed { cause: cause(&result.stderr, result, repository), said })
}

/// What is wrong, and what to do about it.
fn cause(said: &str, result: &ExecResult, repository: &Repository) -> &'static str {
    let any = |words: &[&str]| words.iter().any(|word| said.contains(word));
    if any(&["fsck error", "fsckObjects"]) {
        "refused: the repository holds what git itself calls dangerous"
    } else if any(&["Remote branch", "remote ref", "not our ref", "did not match any", "pathspec"])
    {
        "ref: there is no such branch, tag or commit"
    } else if any(&["Authentication failed", "could not read Username", "error: 403", "error: 401"])
    {
        if repository.credential.is_some() {
            "auth: the credential was refused, or there is no such repository"
        } else {
            "auth: there is no such repository, or it is private: set `credential`"
        }
    } else if any(&["not found", "error: 404", "not valid: is this a git repository"]) {
        "not_found: there is no such repository"
    } else if any(&[
        "Could not resolve",
        "Failed to connect",
        "unable to access",
        "Connection",
        "SSL",
    ]) {
        "network: the host did not answer as it should"
    } else if result.oom_killed {
        "memory: the repository is too large for a clone's limit"
    } else if result.exit_code == 127 {
        "setup: there is no git in the jail"
    } else {
        "git"
    }
}
