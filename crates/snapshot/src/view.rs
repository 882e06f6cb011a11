//! What is seen through a chain of layers.

use std::path::PathBuf;

use crate::manifest::{Entry, Kind, ManifestError, ManifestHash, Reader};
use crate::order;

/// One layer of a chain.
#[derive(Debug, Clone)]
pub struct Stratum {
    pub manifest: PathBuf,
    pub hash: ManifestHash,
    /// The tree's files.
    pub files: PathBuf,
}

/// An entry, and the layer whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub entry: Entry,
    /// Position in the chain; 0 is the top.
    pub layer: usize,
}

/// Reads all manifests of a chain at once, in order; holds one entry of each.
pub struct View {
    layers: Vec<Layer>,
    /// Directories below which only layers above a position are seen, the innermost last.
    hidden: Vec<(Vec<u8>, usize)>,
}

struct Layer {
    reader: Reader,
    next: Option<Entry>,
}

impl std::fmt::Debug for View {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("View").field("layers", &self.layers.len()).finish_non_exhaustive()
    }
}

impl View {
    /// Of a chain, the topmost layer first.
    pub fn open(chain: &[Stratum]) -> Result<Self, ManifestError> {
        let open = |stratum: &Stratum| {
            let mut reader = Reader::open(&stratum.manifest, stratum.hash)?;
            Ok(Layer { next: reader.next()?, reader })
        };
        let layers = chain.iter().map(open).collect::<Result<_, ManifestError>>()?;
        Ok(Self { layers, hidden: Vec::new() })
    }

    /// The next entry that is seen.
    #[expect(clippy::should_implement_trait, reason = "it can fail, and `?` is what callers want")]
    pub fn next(&mut self) -> Result<Option<Seen>, ManifestError> {
        loop {
            let Some(path) = self.lowest() else { return Ok(None) };
            self.hidden.retain(|(directory, _)| order::is_below(&path, directory));
            let seen_above =
                self.hidden.iter().map(|(_, layer)| *layer).min().unwrap_or(usize::MAX);
            let mut top: Option<Seen> = None;
            let mut hides_from = None;
            for n in 0..self.layers.len() {
                let Some(entry) = self.take_if_at(n, &path)? else { continue };
                // What is at a layer that hides has come from above it.
                if n > seen_above || hides_from.is_some() {
                    continue;
                }
                let goes_on = matches!(entry.kind, Kind::Directory { opaque: false });
                if !goes_on {
                    hides_from = Some(n);
                }
                // A file below a directory ends what the directory takes in, and is not seen.
                if top.is_none() {
                    top = Some(Seen { entry, layer: n });
                }
            }
            if let Some(layer) = hides_from {
                self.hidden.push((path, layer));
            }
            match top {
                Some(seen) if seen.entry.kind != Kind::Removed => return Ok(Some(seen)),
                _ => {}
            }
        }
    }

    fn lowest(&self) -> Option<Vec<u8>> {
        let paths = self.layers.iter().filter_map(|layer| Some(&layer.next.as_ref()?.path));
        paths.min_by(|a, b| order::compare(a, b)).cloned()
    }

    fn take_if_at(&mut self, n: usize, path: &[u8]) -> Result<Option<Entry>, ManifestError> {
        let layer = &mut self.layers[n];
        if layer.next.as_ref().is_none_or(|entry| entry.path != path) {
            return Ok(None);
        }
        let following = layer.reader.next()?;
        Ok(std::mem::replace(&mut layer.next, following))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Writer;

    fn layer(entries: &[(&str, char)]) -> (tempfile::TempDir, Stratum) {
        let directory = tempfile::tempdir().unwrap();
        let manifest = directory.path().join("manifest");
        let mut writer = Writer::create(&manifest).unwrap();
        for (path, kind) in entries {
            let kind = match kind {
                'd' => Kind::Directory { opaque: false },
                'o' => Kind::Directory { opaque: true },
                'x' => Kind::Removed,
                other => Kind::File { size: u64::from(*other as u32), hash: [0; 32], link: None },
            };
            let path = path.as_bytes().to_vec();
            writer
                .add(&Entry { path, mode: 0, modified: 0, kind, attributes: Vec::new() })
                .unwrap();
        }
        let hash = writer.finish(&manifest).unwrap();
        let files = directory.path().to_owned();
        (directory, Stratum { manifest, hash, files })
    }

    fn seen(layers: &[&[(&str, char)]]) -> Vec<(String, usize)> {
        let (_directories, chain): (Vec<_>, Vec<_>) =
            layers.iter().map(|entries| layer(entries)).unzip();
        let mut view = View::open(&chain).unwrap();
        let mut seen = Vec::new();
        while let Some(Seen { entry, layer }) = view.next().unwrap() {
            seen.push((String::from_utf8(entry.path).unwrap(), layer));
        }
        seen
    }

    fn owned(expected: &[(&str, usize)]) -> Vec<(String, usize)> {
        expected.iter().map(|(path, layer)| ((*path).to_owned(), *layer)).collect()
    }

    #[test]
    fn the_topmost_is_seen() {
        let top: &[(&str, char)] = &[("a", 'd'), ("a/x", '2'), ("b", '2')];
        let bottom: &[(&str, char)] = &[("a", 'd'), ("a/x", '1'), ("a/y", '1'), ("c", '1')];
        assert_eq!(
            seen(&[top, bottom]),
            owned(&[("a", 0), ("a/x", 0), ("a/y", 1), ("b", 0), ("c", 1)])
        );
    }

    #[test]
    fn what_was_removed_is_not() {
        let bottom: &[(&str, char)] = &[("a", 'd'), ("a/x", '1'), ("a-b", '1')];
        assert_eq!(seen(&[&[("a", 'x')], bottom]), owned(&[("a-b", 1)]));
        assert_eq!(seen(&[&[("a", 'o')], bottom]), owned(&[("a", 0), ("a-b", 1)]));
        assert_eq!(
            seen(&[&[("a", '2')], bottom]),
            owned(&[("a", 0), ("a-b", 1)]),
            "a file over it"
        );
        assert_eq!(
            seen(&[&[("a", 'd'), ("a/z", '3')], &[("a", 'x')], bottom]),
            owned(&[("a", 0), ("a/z", 0), ("a-b", 2)]),
            "removed in between, and made again"
        );
        assert_eq!(
            seen(&[&[("a", 'd'), ("a/x", 'x')], &[("a", 'd'), ("a/x", '2')], bottom]),
            owned(&[("a", 0), ("a-b", 2)])
        );
    }
}
