//! Files: every path resolved by the kernel below one root, contents streamed both ways.
//!
//! Nothing here trusts what lies in a directory: links may be swapped while we look. So a path is looked
//! up once, by `openat2`, and from then on there are descriptors, not names.

mod archive;
mod batch;
mod error;
mod list;
mod pending;
mod read;
mod root;
pub(crate) mod routes;
mod search;
mod tree;
mod unpack;
mod walk;
mod watch;
mod wire;
mod write;

pub(crate) use error::FileError;
pub(crate) use pending::Pending;
pub use pending::sweep;
pub(crate) use root::Root;
