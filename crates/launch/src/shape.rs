//! What must be known of a jail before it is anybody's.

use crate::message::{Network, Profile, Spec, Tree};
use crate::seccomp::UnixSockets;

/// Jails of one shape can be made ready in advance, and are used by one host user only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) host_id: u32,
    pub(crate) filter: FilterKind,
    pub(crate) network: Network,
    /// Sizes of what is mounted fresh; `None` where a directory of the host will be.
    pub(crate) workspace: Option<u64>,
    pub(crate) output: Option<u64>,
    pub(crate) tmp: u64,
}

/// Which filter the commands of a jail live under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FilterKind {
    pub(crate) profile: Profile,
    pub(crate) unix: UnixSockets,
}

impl Shape {
    pub(crate) fn of(spec: &Spec, host_id: u32) -> Self {
        let fresh = |tree: &Tree| match tree {
            Tree::Fresh { bytes, .. } => Some(*bytes),
            Tree::Host { .. } => None,
        };
        let (workspace, output) = (fresh(&spec.workspace), fresh(&spec.output));
        // Somebody outside could have a socket in a directory of the host.
        let unix = match (workspace, output) {
            (Some(_), Some(_)) => UnixSockets::Allowed,
            _ => UnixSockets::Refused,
        };
        Self {
            host_id,
            filter: FilterKind { profile: spec.profile, unix },
            network: spec.network.clone(),
            workspace,
            output,
            tmp: spec.limits.tmp_bytes,
        }
    }
}
