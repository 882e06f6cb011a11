//! How much of the disk a tree takes.

use std::io;
use std::path::Path;

use crate::tree;

/// Of one tree, at about one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Measured {
    /// Blocks in use, in bytes. A file with several names counts as a part under each.
    pub bytes: u64,
    /// Whether something could not be looked into, so that there may be more.
    pub incomplete: bool,
}

/// Measures a tree, which others may be writing to. One that is not there takes nothing.
pub fn measure(files: &Path) -> io::Result<Measured> {
    let top = match tree::open_top(files) {
        Ok(top) => top,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Measured::default()),
        Err(error) => return Err(error),
    };
    let mut measured = Measured::default();
    tree::walk(&top, &mut |found| {
        let blocks = u64::try_from(found.status.st_blocks).unwrap_or_default();
        #[allow(clippy::useless_conversion, reason = "of another width on other machines")]
        let names = u64::from(found.status.st_nlink).max(1);
        measured.bytes += blocks * 512 / names;
        measured.incomplete |= found.unread.is_some();
        Ok(())
    })?;
    Ok(measured)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn blocks_count_and_lengths_do_not() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::create_dir(at("sub")).unwrap();
        fs::write(at("sub/full"), vec![1; 1 << 20]).unwrap();
        fs::File::create(at("hollow")).unwrap().set_len(1 << 40).unwrap();
        let once = measure(directory.path()).unwrap();
        assert!((1 << 20..2 << 20).contains(&once.bytes) && !once.incomplete, "{once:?}");
        fs::hard_link(at("sub/full"), at("again")).unwrap();
        assert_eq!(measure(directory.path()).unwrap().bytes, once.bytes, "the same blocks");
        assert_eq!(measure(&at("nothing")).unwrap(), Measured::default());
    }

    #[test]
    fn what_hides_below_many_directories_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let mut deep = directory.path().to_owned();
        deep.extend(std::iter::repeat_n("d", 300));
        fs::create_dir_all(&deep).unwrap();
        assert!(measure(directory.path()).unwrap().incomplete);
    }
}
