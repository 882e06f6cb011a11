//! Making a root file system ready for jails: a place for everything that they mount in it.

use std::fs;
use std::io;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path};

use jail::{IMAGE_DIRECTORIES, IMAGE_FILES};

/// The user inside every jail.
const PASSWD: &str = "agent:x:1000:1000:agent:/home/agent:/bin/sh\n";
const GROUP: &str = "agent:x:1000:\n";

/// Makes directories and files that an image has not, and names the jail's user.
///
/// Nobody but us writes to it, so that looking first is enough. Links of its own are never followed: where
/// one stands in the way of what a jail mounts, it is replaced.
pub(super) fn make(root: &Path) -> io::Result<()> {
    fs::set_permissions(root, fs::Permissions::from_mode(0o755))?;
    for name in IMAGE_DIRECTORIES {
        directory(root, Path::new(name))?;
    }
    directory(root, Path::new("etc"))?;
    for name in IMAGE_FILES {
        file(&root.join(name))?;
    }
    names_user(&root.join("etc/passwd"), PASSWD)?;
    names_user(&root.join("etc/group"), GROUP)
}

fn directory(root: &Path, path: &Path) -> io::Result<()> {
    let mut at = root.to_owned();
    for component in path.components() {
        let Component::Normal(name) = component else { continue };
        at.push(name);
        match fs::symlink_metadata(&at) {
            Ok(found) if found.is_dir() => continue,
            Ok(_) => fs::remove_file(&at)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        fs::create_dir(&at)?;
        fs::set_permissions(&at, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

fn file(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_file() => return Ok(()),
        Ok(found) if found.is_dir() => fs::remove_dir_all(path)?,
        Ok(_) => fs::remove_file(path)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    fs::write(path, "")
}

/// Adds a line for the jail's user, unless its number has a name already.
fn names_user(path: &Path, line: &str) -> io::Result<()> {
    file(path)?;
    let text = String::from_utf8_lossy(&fs::read(path)?).into_owned();
    if text.lines().any(|line| line.split(':').nth(2) == Some("1000")) {
        return Ok(());
    }
    let mut file = fs::File::options().append(true).open(path)?;
    let break_line = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    write!(file, "{break_line}{line}")
}
