//! Typed identifiers and checked names.
//!
//! A session id is not a tenant id, and a value of either type has been checked: it holds no slash,
//! no dot-dot and no control character, so it may stand in a path, a log line or a query as it is.

mod name;
mod random;

pub use name::{NameError, ServiceId, TenantId};
pub use random::{IdError, KeyId, SessionId, SnapshotId, TreeId, WorkspaceId};
