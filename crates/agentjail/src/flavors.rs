//! `agentjail flavors`: runtimes in the state directory, which jails are given read-only.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use snapshot::Whiteouts;

use crate::shelf::{At, LIMITS, Remove, Shelf, archive, list};

const KIND: &str = "flavor";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a flavor of a directory, or of a tar archive (plain or gzip)
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
    /// Its `bin/` comes on the `PATH` of jails; programs at its top are put into one
    #[arg(long, value_name = "DIR|TAR")]
    from: PathBuf,
    /// Put it in the place of one that is there
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    at: At,
}

pub(crate) fn flavors(command: Command, json: bool) -> anyhow::Result<ExitCode> {
    match command {
        Command::Add(Add { name, from, replace, at }) => {
            let (target, ()) = Shelf::of(KIND, &at)?.add(&name, replace, |made, _| {
                fs::create_dir(made)?;
                fill(made, &from).with_context(|| format!("--from {}", from.display()))?;
                give_bin(made)
            })?;
            writeln!(io::stdout(), "{name}\t{}", target.display())?;
        }
        Command::List(at) => {
            let all = control::flavors::list(&Shelf::of(KIND, &at)?.path)?;
            let all = all.iter().map(|(name, path)| (name.clone(), path.display().to_string()));
            list(all, ["name", "path"], json)?;
        }
        Command::Remove(remove) => Shelf::remove(KIND, &remove)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn fill(target: &Path, from: &Path) -> anyhow::Result<()> {
    if from.is_dir() {
        // By our own archive: what is special in a directory is left out as in any other.
        let (read, write) = io::pipe()?;
        return std::thread::scope(|scope| {
            let writing = scope.spawn(move || {
                let mut builder = tar::Builder::new(write);
                builder.follow_symlinks(false);
                builder.append_dir_all(".", from).and_then(|()| builder.into_inner().map(drop))
            });
            snapshot::unpack(read, target, Whiteouts::Kept, LIMITS)?;
            let written = writing.join().map_err(|_| anyhow::anyhow!("reading it broke off"))?;
            written.context("it could not be read")
        });
    }
    let unpacked = snapshot::unpack(archive(from)?, target, Whiteouts::Kept, LIMITS);
    let unpacked = unpacked.context("not a tar archive, plain or gzip, that can be unpacked")?;
    if unpacked.entries == 0 {
        bail!("the archive is empty");
    }
    Ok(())
}

/// Archives of runtimes often have one directory at their top, and single programs have no `bin/`.
fn give_bin(made: &Path) -> anyhow::Result<()> {
    let entries: Vec<_> = fs::read_dir(made)?.collect::<io::Result<_>>()?;
    if let [only] = entries.as_slice()
        && only.file_type()?.is_dir()
        && only.file_name() != "bin"
    {
        let inner = only.path();
        let aside = made.with_extension("top");
        fs::rename(inner, &aside)?;
        fs::remove_dir(made)?;
        fs::rename(aside, made)?;
    }
    let bin = made.join("bin");
    if bin.is_dir() {
        return Ok(());
    }
    let mut programs = Vec::new();
    for entry in fs::read_dir(made)? {
        let entry = entry?;
        let mode = std::os::unix::fs::PermissionsExt::mode(&entry.metadata()?.permissions());
        if entry.file_type()?.is_file() && mode & 0o111 != 0 {
            programs.push(entry.file_name());
        }
    }
    if programs.is_empty() {
        bail!("it has neither a `bin` directory nor programs at its top");
    }
    fs::create_dir(&bin)?;
    for program in programs {
        std::os::unix::fs::symlink(Path::new("..").join(&program), bin.join(&program))?;
    }
    Ok(())
}
