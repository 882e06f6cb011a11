//! What is seen through a chain, as a tar stream.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use tar::{Builder, EntryType, Header};

use crate::manifest::{Entry, Kind, ManifestError};
use crate::tree;
use crate::view::{Seen, Stratum, View};

/// Why a stream broke off.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    #[error("the archive could not be written")]
    Write(#[from] io::Error),
    #[error("{0} is not what it was when it was sealed")]
    Corrupt(String),
}

/// Writes the archive, POSIX (pax) format. Contents are compared with their hashes on the way: a stream
/// with one that differs breaks off before its end.
pub fn write_archive(chain: &[Stratum], to: impl Write) -> Result<(), ArchiveError> {
    let tops = chain
        .iter()
        .map(|stratum| tree::open_top(&stratum.files))
        .collect::<io::Result<Vec<OwnedFd>>>()?;
    let mut view = View::open(chain)?;
    let mut builder = Builder::new(to);
    let mut links: HashMap<(usize, u64), Vec<u8>> = HashMap::new();
    while let Some(Seen { entry, layer }) = view.next()? {
        let mut header = header(&entry);
        append_extensions(&mut builder, &entry)?;
        let path = Path::new(OsStr::from_bytes(&entry.path));
        match &entry.kind {
            Kind::Removed => {}
            Kind::Directory { .. } => {
                header.set_entry_type(EntryType::Directory);
                builder.append_data(&mut header, path, io::empty())?;
            }
            Kind::Symlink { target } => {
                header.set_entry_type(EntryType::Symlink);
                builder.append_link(&mut header, path, OsStr::from_bytes(target))?;
            }
            Kind::File { size, hash, link } => {
                if let Some(number) = link {
                    if let Some(first) = links.get(&(layer, *number)) {
                        header.set_entry_type(EntryType::Link);
                        builder.append_link(&mut header, path, OsStr::from_bytes(first))?;
                        continue;
                    }
                    links.insert((layer, *number), entry.path.clone());
                }
                header.set_entry_type(EntryType::Regular);
                header.set_size(*size);
                let file = tree::file_beneath(&tops[layer], &entry.path)?;
                let mut content =
                    Hashing { inner: file.take(*size), hasher: blake3::Hasher::new() };
                builder.append_data(&mut header, path, &mut content)?;
                if content.hasher.finalize().as_bytes() != hash {
                    return Err(ArchiveError::Corrupt(
                        String::from_utf8_lossy(&entry.path).into_owned(),
                    ));
                }
            }
        }
    }
    builder.into_inner()?.flush()?;
    Ok(())
}

fn header(entry: &Entry) -> Header {
    let mut header = Header::new_ustar();
    header.set_mode(entry.mode & 0o1777);
    header.set_mtime(u64::try_from(entry.modified / 1_000_000_000).unwrap_or_default());
    // The user inside a jail; who that is on this machine is nobody's business.
    header.set_uid(1000);
    header.set_gid(1000);
    header.set_size(0);
    header
}

/// The time to the nanosecond, and attributes.
fn append_extensions(builder: &mut Builder<impl Write>, entry: &Entry) -> io::Result<()> {
    let seconds = entry.modified.div_euclid(1_000_000_000);
    let time = format!("{seconds}.{:09}", entry.modified.rem_euclid(1_000_000_000));
    let names: Vec<_> = entry
        .attributes
        .iter()
        .map(|(name, _)| format!("SCHILY.xattr.{}", String::from_utf8_lossy(name)))
        .collect();
    let values = entry.attributes.iter().map(|(_, value)| value.as_slice());
    let extensions = names.iter().map(String::as_str).zip(values);
    builder.append_pax_extensions(extensions.chain([("mtime", time.as_bytes())]))
}

struct Hashing<R> {
    inner: R,
    hasher: blake3::Hasher,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        Ok(read)
    }
}
