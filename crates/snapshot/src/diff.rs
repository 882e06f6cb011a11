//! What differs between two chains, from their manifests alone.

use crate::manifest::{Entry, Kind, ManifestError};
use crate::order;
use crate::view::{Seen, Stratum, View};

/// One path that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    Added(Entry),
    /// As it was, and as it is.
    Changed(Entry, Entry),
    Removed(Entry),
}

/// The first differences, in order, and how many there are of each kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Differences {
    pub first: Vec<Difference>,
    pub added: u64,
    pub changed: u64,
    pub removed: u64,
}

/// Compares what is seen through two chains; gives at most `most` differences.
pub fn diff(old: &[Stratum], new: &[Stratum], most: usize) -> Result<Differences, ManifestError> {
    let (mut old, mut new) = (View::open(old)?, View::open(new)?);
    let (mut before, mut after) = (entry(&mut old)?, entry(&mut new)?);
    let mut differences = Differences::default();
    loop {
        let order = match (&before, &after) {
            (None, None) => return Ok(differences),
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(before), Some(after)) => order::compare(&before.path, &after.path),
        };
        let was = if order.is_le() { replace(&mut before, &mut old)? } else { None };
        let is = if order.is_ge() { replace(&mut after, &mut new)? } else { None };
        let difference = match (was, is) {
            (Some(was), None) => {
                differences.removed += 1;
                Difference::Removed(was)
            }
            (None, Some(is)) => {
                differences.added += 1;
                Difference::Added(is)
            }
            (Some(was), Some(is)) if differs(&was, &is) => {
                differences.changed += 1;
                Difference::Changed(was, is)
            }
            _ => continue,
        };
        if differences.first.len() < most {
            differences.first.push(difference);
        }
    }
}

fn entry(view: &mut View) -> Result<Option<Entry>, ManifestError> {
    Ok(view.next()?.map(|Seen { entry, .. }| entry))
}

fn replace(entry_of: &mut Option<Entry>, view: &mut View) -> Result<Option<Entry>, ManifestError> {
    Ok(std::mem::replace(entry_of, entry(view)?))
}

/// A time by itself is no difference, nor is a directory's.
fn differs(was: &Entry, is: &Entry) -> bool {
    let content = match (&was.kind, &is.kind) {
        (Kind::File { hash: was, .. }, Kind::File { hash: is, .. }) => was != is,
        (Kind::Symlink { target: was }, Kind::Symlink { target: is }) => was != is,
        (Kind::Directory { .. }, Kind::Directory { .. }) => false,
        _ => true,
    };
    content || was.mode != is.mode || was.attributes != is.attributes
}
