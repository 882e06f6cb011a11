//! A shelf: named directories in the state that jails are given read-only. Flavors stand on one, images on
//! another.

use std::fs;
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use control::StateDir;
use snapshot::UnpackLimits;

use crate::serve::state_dir_of;

/// More than a runtime or a distribution has, and less than a disk.
pub(crate) const LIMITS: UnpackLimits = UnpackLimits { entries: 2_000_000, bytes: 64 << 30 };

#[derive(Debug, Args)]
pub(crate) struct At {
    /// The server's state directory [default: that of `agentjail serve`]
    #[arg(long, env = "AGENTJAIL_STATE_DIR", value_name = "DIR")]
    state_dir: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Remove {
    /// As it is listed
    pub(crate) name: String,
    #[command(flatten)]
    at: At,
}

/// Where things of one kind stand.
#[derive(Debug)]
pub(crate) struct Shelf {
    kind: &'static str,
    pub(crate) path: PathBuf,
}

impl Shelf {
    /// Of a kind, which is also the directory's name, but for an `s`.
    pub(crate) fn of(kind: &'static str, at: &At) -> anyhow::Result<Self> {
        let path = state_dir_of(at.state_dir.as_deref())?.join(format!("{kind}s"));
        Ok(Self { kind, path })
    }

    /// Puts something there: whole, or not at all. `fill` is given its directory, which it makes, and one beside
    /// it that is gone afterwards.
    pub(crate) fn add<T>(
        &self,
        name: &str,
        replace: bool,
        fill: impl FnOnce(&Path, &Path) -> anyhow::Result<T>,
    ) -> anyhow::Result<(PathBuf, T)> {
        let kind = self.kind;
        let target = self.place_of(name)?;
        if target.exists() && !replace {
            bail!("the {kind} {name} is there already: say --replace to put this in its place");
        }
        // The state holds keys: whoever makes it first makes it for this user alone.
        let state = self.path.parent().unwrap_or(&self.path).to_owned();
        StateDir::open(state.clone()).with_context(|| state.display().to_string())?;
        fs::create_dir_all(&self.path).with_context(|| self.path.display().to_string())?;
        // One at a time, so that what is half made is nobody's: left by one that was killed.
        let alone = fs::File::open(&self.path)?;
        alone.lock()?;
        control::remove_beginning(&self.path, control::IN_THE_MAKING);
        // Under no name that one can have, until it is whole.
        let fresh =
            tempfile::Builder::new().prefix(control::IN_THE_MAKING).tempdir_in(&self.path)?;
        let made = fresh.path().join("it");
        let filled = fill(&made, fresh.path())?;
        if target.exists() {
            put_away(&target)?;
        }
        fs::rename(&made, &target)?;
        drop((fresh, alone));
        Ok((target, filled))
    }

    pub(crate) fn remove(kind: &'static str, Remove { name, at }: &Remove) -> anyhow::Result<()> {
        let target = Self::of(kind, at)?.place_of(name)?;
        put_away(&target).with_context(|| format!("there is no {kind} {name}"))
    }

    fn place_of(&self, name: &str) -> anyhow::Result<PathBuf> {
        if !control::flavors::is_name(name) {
            bail!(
                "{name:?} is no name of a {}: 1 to 32 of a-z, 0-9, `_` and `-`, beginning with a letter or a digit",
                self.kind
            );
        }
        Ok(self.path.join(name))
    }
}

/// Shows what stands on a shelf: a line each, or one JSON list.
pub(crate) fn list(
    all: impl Iterator<Item = (String, String)>,
    [first, second]: [&str; 2],
    json: bool,
) -> io::Result<()> {
    let mut out = io::stdout();
    if json {
        let all: Vec<_> =
            all.map(|(name, other)| serde_json::json!({ first: name, second: other })).collect();
        return writeln!(out, "{:#}", serde_json::Value::Array(all));
    }
    for (name, other) in all {
        writeln!(out, "{name}\t{other}")?;
    }
    Ok(())
}

/// Opens a tar archive, plain or gzip.
pub(crate) fn archive(path: &Path) -> io::Result<Box<dyn Read>> {
    let mut file = fs::File::open(path)?;
    let mut magic = [0; 2];
    let gzip = file.read_exact(&mut magic).is_ok() && magic == [0x1f, 0x8b];
    io::Seek::rewind(&mut file)?;
    Ok(if gzip { Box::new(flate2::read::MultiGzDecoder::new(file)) } else { Box::new(file) })
}

/// Out of sight at once. A jail that has it mounted keeps it: it goes when the server next starts.
fn put_away(path: &Path) -> anyhow::Result<()> {
    if path.is_symlink() {
        return Ok(fs::remove_file(path)?);
    }
    let parent = path.parent().context("it is on a shelf")?;
    let aside = tempfile::Builder::new().prefix(control::PUT_AWAY).tempdir_in(parent)?;
    fs::rename(path, aside.path().join("it"))?;
    drop(aside.keep());
    Ok(())
}
