//! Where things are on this machine, and what this program's environment says.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context as _;

/// This program's environment, as far as it is text.
pub(crate) fn environment() -> BTreeMap<String, String> {
    let all = std::env::vars_os();
    all.filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

pub(crate) fn home(environment: &BTreeMap<String, String>) -> PathBuf {
    environment.get("HOME").map_or_else(|| PathBuf::from("/"), PathBuf::from)
}

/// `<data>/sandbox-agent`
pub(crate) fn data(environment: &BTreeMap<String, String>) -> PathBuf {
    let named = environment.get("XDG_DATA_HOME").filter(|path| path.starts_with('/'));
    let data = named.map_or_else(|| home(environment).join(".local/share"), PathBuf::from);
    data.join("sandbox-agent")
}

/// How this program calls itself: its file, and the words before its own.
pub(crate) fn itself() -> anyhow::Result<(PathBuf, Vec<String>)> {
    let program = std::env::current_exe().context("this program cannot find itself")?;
    let as_part = program.file_name().is_some_and(|name| name == "agentjail");
    Ok((program, if as_part { vec!["agent".to_owned()] } else { Vec::new() }))
}

/// Runs something to its end, on this thread.
pub(crate) fn wait_for<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

/// Prints a result: JSON on standard output, and nothing else there.
pub(crate) fn print(value: &serde_json::Value) -> anyhow::Result<()> {
    use std::io::Write as _;
    let text = serde_json::to_string_pretty(value)?;
    // A reader that closes early (`| head`) is not an error of ours.
    drop(std::io::stdout().write_all(format!("{text}\n").as_bytes()));
    Ok(())
}
