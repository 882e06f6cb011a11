//! `agentjail images`: root file systems in the state directory, which jails are given read-only.

mod oci;
mod ready;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use control::images::{self, About};
use snapshot::Whiteouts;

use crate::flavors::{At, LIMITS, archive, put_away};
use crate::serve::state_dir_of;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make an image of an OCI layout: a directory, or a tar archive of one
    Add(Add),
    /// List them
    #[command(visible_alias = "ls")]
    List(At),
    /// Remove one; jails that run keep it to their end
    #[command(visible_alias = "rm")]
    Remove(Remove),
}

#[derive(Debug, Args)]
pub(crate) struct Add {
    /// 1 to 32 of a-z, 0-9, `_` and `-`
    name: String,
    /// As written by `docker save`, `podman save --format oci-archive`, `skopeo copy … oci:DIR`
    #[arg(long, value_name = "DIR|TAR")]
    from: PathBuf,
    /// Which of several images, by the tag the layout gives it
    #[arg(long)]
    tag: Option<String>,
    /// Put it in the place of one that is there
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    at: At,
}

#[derive(Debug, Args)]
pub(crate) struct Remove {
    name: String,
    #[command(flatten)]
    at: At,
}

pub(crate) fn images(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Add(add) => self::add(&add)?,
        Command::List(at) => {
            for image in images::list(&directory(&at)?)? {
                writeln!(std::io::stdout(), "{}\t{}", image.name, image.about.digest)?;
            }
        }
        Command::Remove(Remove { name, at }) => {
            let path = directory(&at)?.join(checked(&name)?);
            put_away(&path).with_context(|| format!("there is no image {name}"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn add(add: &Add) -> anyhow::Result<()> {
    let directory = directory(&add.at)?;
    let target = directory.join(checked(&add.name)?);
    if target.exists() && !add.replace {
        bail!("there is already an image {}: say --replace to put this in its place", add.name);
    }
    fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
    // Beside the others and under no name of an image, until it is whole.
    let fresh = tempfile::Builder::new().prefix(".new-").tempdir_in(&directory)?;
    let made = fresh.path().join("it");
    let root = images::root_of(&made);
    fs::create_dir_all(&root)?;
    let about = unpacked(&add.from, add.tag.as_deref(), fresh.path(), &root)
        .with_context(|| format!("--from {}", add.from.display()))?;
    ready::make(&root).context("the image cannot be made ready for jails")?;
    images::finish(&made, &about)?;
    if target.exists() {
        put_away(&target)?;
    }
    fs::rename(&made, &target)?;
    writeln!(std::io::stdout(), "{}\t{}", add.name, about.digest)?;
    Ok(())
}

fn unpacked(from: &Path, tag: Option<&str>, beside: &Path, root: &Path) -> anyhow::Result<About> {
    if from.is_dir() {
        return oci::unpack(from, tag, root);
    }
    // What is in an archive is read in another order than it is written.
    let layout = beside.join("layout");
    fs::create_dir(&layout)?;
    snapshot::unpack(archive(from)?, &layout, Whiteouts::Kept, LIMITS)
        .context("not a tar archive, plain or gzip, that can be unpacked")?;
    oci::unpack(&layout, tag, root)
}

fn directory(at: &At) -> anyhow::Result<PathBuf> {
    Ok(state_dir_of(at.state_dir.as_deref())?.join("images"))
}

fn checked(name: &str) -> anyhow::Result<&str> {
    if !control::flavors::is_name(name) {
        bail!(
            "{name:?} is not an image's name: 1 to 32 of a-z, 0-9, `_` and `-`, beginning with a letter or a digit"
        );
    }
    Ok(name)
}
