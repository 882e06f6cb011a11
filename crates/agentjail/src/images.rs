//! `agentjail images`: root file systems in the state directory, which jails are given read-only.

mod oci;
mod ready;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use control::images::{self, About};
use snapshot::Whiteouts;

use crate::shelf::{At, LIMITS, Remove, Shelf, archive, list};

const KIND: &str = "image";

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

pub(crate) fn images(command: Command, json: bool) -> anyhow::Result<ExitCode> {
    match command {
        Command::Add(Add { name, from, tag, replace, at }) => {
            let (_, about) = Shelf::of(KIND, &at)?.add(&name, replace, |made, beside| {
                let root = images::root_of(made);
                fs::create_dir_all(&root)?;
                let about = unpacked(&from, tag.as_deref(), beside, &root)
                    .with_context(|| format!("--from {}", from.display()))?;
                ready::make(&root).context("the image cannot be made ready for jails")?;
                images::finish(made, &about)?;
                Ok(about)
            })?;
            writeln!(std::io::stdout(), "{name}\t{}", about.digest)?;
        }
        Command::List(at) => {
            let all = images::list(&Shelf::of(KIND, &at)?.path)?;
            let all = all.into_iter().map(|image| (image.name, image.about.digest));
            list(all, ["name", "digest"], json)?;
        }
        Command::Remove(remove) => Shelf::remove(KIND, &remove)?,
    }
    Ok(ExitCode::SUCCESS)
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
