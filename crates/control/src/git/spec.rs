//! Which repositories to clone: as sent, and as meant.

use httpkit::{ApiError, Kind};
use serde::Deserialize;
use utoipa::ToSchema;

const LONGEST_URL: usize = 512;
const LONGEST_REF: usize = 200;
const LONGEST_DIR: usize = 128;
const MOST_REPOSITORIES: usize = 16;

/// One repository at the top of the workspace, or several, each in a directory of its own.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(expecting = "an object with `repo`, or with `repos`")]
pub(crate) struct GitSpec {
    /// `https://`, at most 512 bytes, without credentials.
    repo: Option<String>,
    /// A branch, a tag, or a commit's full hash.
    #[serde(rename = "ref")]
    reference: Option<String>,
    /// A service whose upstream is the repository's host, and whose key clones it; `github` for
    /// github.com. The key does not enter the jail.
    credential: Option<String>,
    repos: Option<Vec<RepositorySpec>>,
    /// Commits of history; 1 unless said otherwise, 0 for all.
    #[schema(minimum = 0)]
    depth: Option<u32>,
}

/// One of several repositories.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub(crate) struct RepositorySpec {
    repo: String,
    #[serde(rename = "ref")]
    reference: Option<String>,
    /// One plain name; by default the last segment of the URL, without `.git`.
    dir: Option<String>,
    credential: Option<String>,
}

/// A repository as meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Repository {
    pub(crate) url: String,
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Of the URL, from its slash.
    pub(crate) path: String,
    pub(crate) reference: Option<String>,
    /// Below the workspace; `None` is the workspace itself.
    pub(crate) directory: Option<String>,
    pub(crate) credential: Option<String>,
    /// 0 is all of the history.
    pub(crate) depth: u32,
}

impl GitSpec {
    /// Checks it.
    pub(crate) fn repositories(self) -> Result<Vec<Repository>, ApiError> {
        let depth = self.depth.unwrap_or(1);
        let several = self.repos.filter(|repos| !repos.is_empty());
        match (self.repo, several) {
            (Some(_), Some(_)) => Err(invalid("git: set either `repo` or `repos`, not both")),
            (None, None) => Err(invalid("git: provide `repo` or `repos`")),
            (Some(repo), None) => {
                let one = repository("git", &repo, self.reference, self.credential, depth)?;
                Ok(vec![one])
            }
            (None, Some(repos)) => many(repos, depth),
        }
    }
}

/// Where a workspace or run began: the first repository and its ref.
pub(crate) fn provenance(repositories: &[Repository]) -> Option<(String, Option<String>)> {
    let first = repositories.first()?;
    Some((first.url.clone(), first.reference.clone()))
}

fn many(repos: Vec<RepositorySpec>, depth: u32) -> Result<Vec<Repository>, ApiError> {
    if repos.len() > MOST_REPOSITORIES {
        return Err(invalid(format!("git.repos: at most {MOST_REPOSITORIES}")));
    }
    let mut all: Vec<Repository> = Vec::new();
    for spec in repos {
        let mut one = repository("git", &spec.repo, spec.reference, spec.credential, depth)?;
        let directory = directory(spec.dir.as_deref(), &one.path)?;
        if all.iter().any(|other| other.directory.as_ref() == Some(&directory)) {
            return Err(invalid(format!(
                "git.repos.dir: \"{directory}\" is used twice; set `dir`"
            )));
        }
        one.directory = Some(directory);
        all.push(one);
    }
    Ok(all)
}

fn repository(
    field: &str,
    url: &str,
    reference: Option<String>,
    credential: Option<String>,
    depth: u32,
) -> Result<Repository, ApiError> {
    let rest = url.strip_prefix("https://").filter(|_| url.len() <= LONGEST_URL);
    let plain = |byte: u8| (b'!'..=b'~').contains(&byte);
    let rest = rest.filter(|rest| rest.bytes().all(plain));
    let rest = rest.ok_or_else(|| {
        invalid(format!("{field}.repo must be https:// (max {LONGEST_URL} bytes)"))
    })?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    if authority.contains('@') {
        return Err(invalid(format!(
            "{field}.repo must not embed credentials (user:token@host); use `credential`"
        )));
    }
    let missing = || invalid(format!("{field}.repo missing host"));
    let parsed: axum::http::uri::Authority = authority.parse().map_err(|_| missing())?;
    let host = egress::HostName::parse(parsed.host()).map_err(|_| missing())?.to_string();
    if path.len() < 2 || url.contains(['?', '#']) {
        return Err(invalid(format!(
            "{field}.repo must be the URL of a repository, without a query"
        )));
    }
    if let Some(reference) = &reference {
        check_reference(field, reference)?;
    }
    Ok(Repository {
        url: url.to_owned(),
        host,
        port: parsed.port_u16().unwrap_or(443),
        path: path.to_owned(),
        reference,
        directory: None,
        credential,
        depth,
    })
}

fn check_reference(field: &str, reference: &str) -> Result<(), ApiError> {
    let bad = reference.is_empty()
        || reference.len() > LONGEST_REF
        || reference.chars().any(char::is_control);
    if bad {
        return Err(invalid(format!(
            "{field}.ref invalid: 1 to {LONGEST_REF} characters, none of them control characters"
        )));
    }
    if reference.starts_with('-') {
        return Err(invalid(format!("{field}.ref must not start with `-`")));
    }
    Ok(())
}

fn directory(given: Option<&str>, path: &str) -> Result<String, ApiError> {
    let last = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let name = given.unwrap_or_else(|| last.strip_suffix(".git").unwrap_or(last));
    let shown: String = name.chars().take(64).collect();
    if name.is_empty() || name == "." || name == ".." || name.len() > LONGEST_DIR {
        return Err(invalid(format!("git.repos.dir invalid: \"{shown}\"")));
    }
    if name.contains(['/', '\\']) || name.starts_with(['.', '-']) {
        return Err(invalid(format!(
            "git.repos.dir must not contain slashes or leading `.` or `-`: \"{shown}\""
        )));
    }
    if name.chars().any(char::is_control) {
        return Err(invalid(format!("git.repos.dir invalid: {shown:?}")));
    }
    Ok(name.to_owned())
}

fn invalid(text: impl Into<String>) -> ApiError {
    ApiError::said(Kind::Invalid, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: serde_json::Value) -> Result<Vec<Repository>, String> {
        let spec: GitSpec = serde_json::from_value(json).unwrap();
        spec.repositories().map_err(|error| error.text().to_owned())
    }

    #[test]
    fn several_repositories_have_a_directory_each() {
        let all = read(serde_json::json!({ "repos": [
            { "repo": "https://github.com/a/app.git" },
            { "repo": "https://git.example.com:8443/lib", "dir": "deps" },
        ] }))
        .unwrap();
        let directories: Vec<_> = all.iter().map(|one| one.directory.as_deref().unwrap()).collect();
        assert_eq!(directories, ["app", "deps"]);
        assert_eq!(
            (all[1].host.as_str(), all[1].port, all[1].path.as_str()),
            ("git.example.com", 8443, "/lib")
        );
    }

    #[test]
    fn what_could_be_meant_otherwise_is_refused() {
        use serde_json::json;
        let long = format!("https://h/{}", "x".repeat(600));
        for (spec, says) in [
            (json!({}), "provide `repo` or `repos`"),
            (json!({ "repo": "https://h/a", "repos": [{ "repo": "https://h/b" }] }), "not both"),
            (json!({ "repo": "http://h/a" }), "must be https://"),
            (json!({ "repo": "ext::sh -c id" }), "must be https://"),
            (json!({ "repo": "file:///etc" }), "must be https://"),
            (json!({ "repo": long }), "must be https://"),
            (json!({ "repo": "https://u:p@h/a" }), "must not embed credentials"),
            (json!({ "repo": "https:///a" }), "missing host"),
            (json!({ "repo": "https://h" }), "URL of a repository"),
            (json!({ "repo": "https://h/a", "ref": "--upload-pack=x" }), "must not start with"),
            (json!({ "repo": "https://h/a", "ref": "a\nb" }), "ref invalid"),
            (json!({ "repo": "https://h/a", "ref": "" }), "ref invalid"),
            (json!({ "repos": [{ "repo": "https://h/a", "dir": ".." }] }), "dir invalid"),
            (json!({ "repos": [{ "repo": "https://h/a", "dir": "a/b" }] }), "slashes"),
            (json!({ "repos": [{ "repo": "https://h/a", "dir": ".git" }] }), "slashes"),
            (
                json!({ "repos": [{ "repo": "https://h/a" }, { "repo": "https://i/a" }] }),
                "used twice",
            ),
        ] {
            let error = read(spec.clone()).unwrap_err();
            assert!(error.contains(says), "{spec}: {error}");
        }
    }
}
