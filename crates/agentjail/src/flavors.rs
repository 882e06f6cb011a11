//! `agentjail flavors`: runtimes in the state directory, which jails are given read-only.

use std::fs;
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use snapshot::{UnpackLimits, Whiteouts};

use crate::serve::state_dir_of;

/// More than a runtime has, and less than a disk.
pub(crate) const LIMITS: UnpackLimits = UnpackLimits { entries: 2_000_000, bytes: 64 << 30 };

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

#[derive(Debug, Args)]
pub(crate) struct Remove {
    name: String,
    #[command(flatten)]
    at: At,
}

#[derive(Debug, Args)]
pub(crate) struct At {
    /// The server's state directory [default: as of `agentjail serve`]
    #[arg(long, env = "AGENTJAIL_STATE_DIR", value_name = "DIR")]
    pub(crate) state_dir: Option<String>,
}

pub(crate) fn flavors(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Add(add) => self::add(&add)?,
        Command::List(at) => {
            for (name, path) in control::flavors::list(&directory(&at)?)? {
                writeln!(io::stdout(), "{name}\t{}", path.display())?;
            }
        }
        Command::Remove(Remove { name, at }) => {
            let path = directory(&at)?.join(checked(&name)?);
            put_away(&path).with_context(|| format!("there is no flavor {name}"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn add(add: &Add) -> anyhow::Result<()> {
    let directory = directory(&add.at)?;
    let target = directory.join(checked(&add.name)?);
    if target.exists() && !add.replace {
        bail!("there is already a flavor {}: say --replace to put this in its place", add.name);
    }
    fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
    // Beside the others and under no name of a flavor, until it is whole.
    let fresh = tempfile::Builder::new().prefix(".new-").tempdir_in(&directory)?;
    let made = fresh.path().join("it");
    fs::create_dir(&made)?;
    fill(&made, &add.from).with_context(|| format!("--from {}", add.from.display()))?;
    give_bin(&made)?;
    if target.exists() {
        put_away(&target)?;
    }
    fs::rename(&made, &target)?;
    writeln!(io::stdout(), "{}\t{}", add.name, target.display())?;
    Ok(())
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

/// Opens a tar archive, plain or gzip.
pub(crate) fn archive(path: &Path) -> io::Result<Box<dyn Read>> {
    let mut file = fs::File::open(path)?;
    let mut magic = [0; 2];
    let gzip = file.read_exact(&mut magic).is_ok() && magic == [0x1f, 0x8b];
    io::Seek::rewind(&mut file)?;
    Ok(if gzip { Box::new(flate2::read::MultiGzDecoder::new(file)) } else { Box::new(file) })
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

/// Out of sight at once. A jail that has it mounted keeps it: it goes when the server next starts.
pub(crate) fn put_away(path: &Path) -> anyhow::Result<()> {
    if path.is_symlink() {
        return Ok(fs::remove_file(path)?);
    }
    let parent = path.parent().context("a flavor is in a directory")?;
    let aside = tempfile::Builder::new().prefix(control::PUT_AWAY).tempdir_in(parent)?;
    fs::rename(path, aside.path().join("it"))?;
    drop(aside.keep());
    Ok(())
}

fn directory(at: &At) -> anyhow::Result<PathBuf> {
    Ok(state_dir_of(at.state_dir.as_deref())?.join("flavors"))
}

fn checked(name: &str) -> anyhow::Result<&str> {
    if !control::flavors::is_name(name) {
        bail!(
            "{name:?} is not a flavor's name: 1 to 32 of a-z, 0-9, `_` and `-`, beginning with a letter or a digit"
        );
    }
    Ok(name)
}
