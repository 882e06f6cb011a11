//! Where the log goes: the terminal, or a file a day that is kept for a week.

use std::fs::File;
use std::io::IsTerminal as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tracing_subscriber::EnvFilter;

/// How long log files are kept.
const KEPT: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Begins to log. Without a directory: to standard error.
pub(crate) fn begin(filter: &str, directory: Option<&Path>) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(filter)?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_target(false);
    match directory {
        None => {
            let terminal = std::io::stderr().is_terminal();
            builder.with_ansi(terminal).with_writer(std::io::stderr).init();
        }
        Some(directory) => {
            std::fs::create_dir_all(directory)?;
            sweep(directory);
            let file = open(directory)?;
            builder.with_ansi(false).with_writer(Arc::new(file)).init();
        }
    }
    Ok(())
}

fn open(directory: &Path) -> std::io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let day = since.as_secs() / (24 * 60 * 60);
    let path = directory.join(format!("log-{day}"));
    File::options().create(true).append(true).mode(0o600).open(path)
}

fn sweep(directory: &Path) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let ours = entry.file_name().to_string_lossy().starts_with("log-");
        let age = entry
            .metadata()
            .and_then(|about| about.modified())
            .ok()
            .and_then(|at| at.elapsed().ok());
        if ours && age.is_some_and(|age| age > KEPT) {
            drop(std::fs::remove_file(entry.path()));
        }
    }
}
