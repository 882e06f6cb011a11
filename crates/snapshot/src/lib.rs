//! Workspaces as layers: trees on disk, what is in them, and how they become one another.
//!
//! A *tree* is a directory with `files`, which a jail sees, and `work`, which the kernel's overlay
//! needs as long as the tree is written to. Once *sealed* a tree is a *layer*: nobody writes to it again,
//! and any number of overlays may stand over it. So a snapshot of an idle workspace, a fork and a restore
//! copy nothing.
//!
//! A *manifest* says what a layer changes over those below: every entry with its BLAKE3. Read through
//! a chain of them, a [`View`] says what is seen. The *pool* keeps each content once, by its hash.
//!
//! What is in a tree was written by untrusted code, and may change while it is looked at. Every look
//! goes by descriptor, one name at a time, and follows no link.

mod archive;
mod copy;
mod diff;
mod index;
mod manifest;
mod measure;
mod mirror;
mod order;
mod pool;
mod squash;
mod tree;
mod trees;
mod unpack;
mod view;

pub use archive::{ArchiveError, write_archive};
pub use copy::Method;
pub use diff::{Difference, Differences, diff};
pub use index::{Indexed, LeftOut, index};
pub use manifest::{Entry, Kind, ManifestError, ManifestHash};
pub use measure::{Measured, measure};
pub use mirror::{Hot, Mirror, Mirrored};
pub use pool::Pool;
pub use squash::squash;
pub use tree::open_regular;
pub use trees::{Owner, Pin, Trees};
pub use unpack::{UnpackError, UnpackLimits, Unpacked, Whiteouts, unpack};
pub use view::{Seen, Stratum, View};
