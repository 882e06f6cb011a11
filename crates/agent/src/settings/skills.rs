//! Skills: where they come from, and putting them where an agent looks.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::time::timeout;

use crate::agents::skills_directory;
use crate::blocking::blocking;
use crate::problem::Problem;
use crate::processes::{Order, Spawner, Stdios, nothing};

/// Bytes of a name in the cache.
const LONGEST_NAME: usize = 230;

/// How long fetching a repository may take.
const FETCH: Duration = Duration::from_secs(60);

/// A place with skills in it.
#[derive(Debug, Deserialize, Serialize)]
struct Source {
    /// `local`, `git` or `github`
    #[serde(rename = "type")]
    kind: String,
    /// A directory, a URL, or `owner/repository`.
    #[serde(rename = "source")]
    place: String,
    #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
    reference: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subpath: Option<String>,
    /// Only these; all without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    skills: Option<Vec<String>>,
}

/// Skills as they are kept.
pub(super) fn checked(value: Value) -> Result<Value, Problem> {
    let Value::Object(mut config) = value else {
        return Err(Problem::invalid("the body must be a JSON object"));
    };
    let sources = config.remove("sources").unwrap_or_else(|| Value::Array(Vec::new()));
    let sources: Vec<Source> = serde_json::from_value(sources)
        .map_err(|error| Problem::invalid(format!("sources: {error}")))?;
    for source in &sources {
        if source.kind.trim().is_empty() || source.place.trim().is_empty() {
            return Err(Problem::invalid("sources: type and source must not be empty"));
        }
    }
    config.insert("sources".to_owned(), serde_json::to_value(sources).unwrap_or_default());
    Ok(Value::Object(config))
}

/// Links the skills of all sources into the directory where an agent looks for them. One that is there
/// already is left alone, unless it is a link.
pub(super) async fn place(
    all: &Map<String, Value>,
    configured_in: &Path,
    cwd: &Path,
    agent: &str,
    (cache, spawner): (&Path, &Spawner),
) -> Result<(), String> {
    let Some(target) = skills_directory(agent) else { return Ok(()) };
    let target = cwd.join(target);
    for config in all.values() {
        let sources = config.get("sources").cloned().unwrap_or_default();
        let sources: Vec<Source> = serde_json::from_value(sources).unwrap_or_default();
        for source in sources {
            let from = match source.kind.as_str() {
                "local" => configured_in.join(&source.place),
                _ => fetched(&source, cache, spawner).await?,
            };
            let from = match &source.subpath {
                Some(below) => from.join(inside(below)?),
                None => from,
            };
            let target = target.clone();
            blocking(move || link(&from, &target, source.skills.as_deref())).await?;
        }
    }
    Ok(())
}

fn inside(path: &str) -> Result<&Path, String> {
    let path = Path::new(path);
    let plain =
        path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    plain.then_some(path).ok_or_else(|| format!("subpath {} leaves the source", path.display()))
}

fn link(from: &Path, target: &Path, wanted: Option<&[String]>) -> Result<(), String> {
    let told = |error: std::io::Error| format!("{}: {error}", from.display());
    let mut found: Vec<PathBuf> = Vec::new();
    if from.join("SKILL.md").is_file() {
        found.push(from.to_owned());
    } else {
        for place in [from.to_owned(), from.join("skills")] {
            let entries = fs::read_dir(&place).into_iter().flatten().flatten();
            found.extend(
                entries.map(|entry| entry.path()).filter(|path| path.join("SKILL.md").is_file()),
            );
        }
    }
    if found.is_empty() {
        return Err(format!("{}: no SKILL.md in it, nor in what is in it", from.display()));
    }
    fs::create_dir_all(target).map_err(told)?;
    for skill in found {
        let skill = skill.canonicalize().map_err(told)?;
        let Some(name) = skill.file_name() else { continue };
        if wanted.is_some_and(|wanted| !wanted.iter().any(|one| name == one.as_str())) {
            continue;
        }
        let place = target.join(name);
        match fs::symlink_metadata(&place) {
            Ok(about) if !about.is_symlink() => continue,
            Ok(_) => fs::remove_file(&place).map_err(told)?,
            Err(_) => {}
        }
        symlink(&skill, &place).map_err(told)?;
    }
    Ok(())
}

/// A repository, fetched once. Only over https: others can name programs to run.
async fn fetched(source: &Source, cache: &Path, spawner: &Spawner) -> Result<PathBuf, String> {
    let url = match source.kind.as_str() {
        "github" if !source.place.contains("://") => {
            format!("https://github.com/{}", source.place)
        }
        _ => source.place.clone(),
    };
    if !url.starts_with("https://") && !url.starts_with("http://127.0.0.1") {
        return Err(format!("skills from {url}: only https is fetched"));
    }
    let reference = source.reference.clone().unwrap_or_default();
    if reference.starts_with('-') {
        return Err(format!("skills from {url}: ref {reference} is none"));
    }
    // A name for each source, and no two alike.
    let mut name = String::new();
    for byte in format!("{url}@{reference}").bytes() {
        if byte.is_ascii_alphanumeric() {
            name.push(char::from(byte));
        } else {
            let _ = write!(name, "_{byte:02x}");
        }
    }
    if name.len() > LONGEST_NAME {
        return Err(format!("skills from {url}: too long an address"));
    }
    let place = cache.join("skills").join(name);
    if place.is_dir() {
        return Ok(place);
    }
    let fresh = place.with_extension("partial");
    let clean = {
        let (fresh, parent) = (fresh.clone(), cache.join("skills"));
        move || {
            drop(fs::remove_dir_all(&fresh));
            fs::create_dir_all(parent)
        }
    };
    blocking(clean).await.map_err(|error| error.to_string())?;
    let mut args: Vec<String> = ["clone", "--quiet", "--depth", "1"].map(str::to_owned).into();
    if !reference.is_empty() {
        args.extend(["--branch".to_owned(), reference]);
    }
    args.extend(["--".to_owned(), url.clone(), fresh.display().to_string()]);
    git(spawner, args).await.map_err(|error| format!("skills from {url}: {error}"))?;
    let renamed = {
        let place = place.clone();
        blocking(move || fs::rename(&fresh, &place)).await
    };
    renamed.map_err(|error| error.to_string())?;
    Ok(place)
}

async fn git(spawner: &Spawner, args: Vec<String>) -> Result<(), String> {
    let null = || nothing().map_err(|error| error.to_string());
    let env = [
        ("PATH", "/usr/local/bin:/usr/bin:/bin"),
        ("HOME", "/nonexistent"),
        ("GIT_TERMINAL_PROMPT", "0"),
        ("GIT_CONFIG_NOSYSTEM", "1"),
        ("GIT_ALLOW_PROTOCOL", "https:http"),
    ];
    let env: BTreeMap<String, String> =
        env.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let stdio = Stdios::Apart { stdin: null()?, stdout: null()?, stderr: null()? };
    let order = Order { command: "git".to_owned(), args, cwd: None, env, stdio };
    let mut process = spawner.spawn(order).await.map_err(|error| error.to_string())?;
    match timeout(FETCH, process.wait()).await {
        Ok(Ok(ended)) if ended.code == Some(0) => Ok(()),
        Ok(Ok(ended)) => Err(format!("git ended with {:?}", ended.code)),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => {
            process.signal(Signal::KILL);
            Err(format!("git took longer than {FETCH:?}"))
        }
    }
}
