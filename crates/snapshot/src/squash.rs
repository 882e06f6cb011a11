//! Putting one tree in the place of a chain.

use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags, Stat, linkat, mkdirat, openat, symlinkat};
use rustix::io::Errno;

use crate::copy;
use crate::index::Indexed;
use crate::index::LeftOut;
use crate::manifest::{Kind, ManifestError, Writer};
use crate::tree;
use crate::view::{Seen, Stratum, View};

/// Builds, in an empty tree, what is seen through a chain, and its manifest. Files are not copied: both
/// trees are sealed, so that they may share them.
pub fn squash(chain: &[Stratum], files: &Path, manifest: &Path) -> Result<Indexed, ManifestError> {
    let tops = chain
        .iter()
        .map(|stratum| tree::open_top(&stratum.files))
        .collect::<io::Result<Vec<OwnedFd>>>()?;
    let top = tree::open_top(files)?;
    let mut view = View::open(chain)?;
    let mut writer = Writer::create(manifest)?;
    let (mut bytes, mut directories) = (0, Vec::new());
    while let Some(Seen { mut entry, layer }) = view.next()? {
        let path = &entry.path;
        let (parent, name) = tree::parent_of(&top, path)?;
        let source = tree::parent_of(&tops[layer], path);
        match &mut entry.kind {
            Kind::Directory { opaque } => {
                *opaque = false;
                mkdirat(&parent, &name, Mode::from_raw_mode(0o700)).map_err(io::Error::from)?;
                directories.push((path.clone(), layer));
            }
            Kind::File { size, .. } => {
                bytes += *size;
                share(&source?.0, &parent, &name)?;
            }
            Kind::Symlink { target } => {
                let target = CString::new(target.as_slice()).map_err(io::Error::other)?;
                symlinkat(&target, &parent, &name).map_err(io::Error::from)?;
                copy::dress_link(&parent, &name, &tree::look(&source?.0, &name)?)?;
            }
            Kind::Removed => continue,
        }
        writer.add(&entry)?;
    }
    for (path, layer) in directories.iter().rev() {
        let original = tree::directory_beneath(&tops[*layer], path)?;
        let status: Stat = rustix::fs::fstat(&original).map_err(io::Error::from)?;
        let made = tree::directory_beneath(&top, path)?;
        copy::dress(&made, &status, &tree::attributes(&original)?)?;
    }
    Ok(Indexed { manifest: writer.finish(manifest)?, bytes, left_out: LeftOut::default() })
}

fn share(source: &OwnedFd, top: &OwnedFd, path: &CString) -> io::Result<()> {
    match linkat(source, path, top, path, AtFlags::empty()) {
        Ok(()) => Ok(()),
        // As many names as a file can have; without root, a file that is not quite ours.
        Err(Errno::MLINK | Errno::PERM) => {
            let original = tree::open_file(source, path)?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let made = std::fs::File::from(openat(top, path, flags, Mode::from_raw_mode(0o600))?);
            copy::content(&original, &made)?;
            let status = rustix::fs::fstat(&original)?;
            copy::dress(&made, &status, &tree::attributes(&original)?)
        }
        Err(error) => Err(error.into()),
    }
}
