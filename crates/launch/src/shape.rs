//! What must be known of a jail before it is anybody's.

use crate::message::{Access, Network, Profile, Spec, Tree};
use crate::seccomp::UnixSockets;

/// Jails of one shape can be made ready in advance, and are used by one host user only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) host_id: u32,
    pub(crate) filter: FilterKind,
    pub(crate) network: Network,
    pub(crate) workspace: Place,
    pub(crate) output: Place,
    pub(crate) tmp: u64,
}

/// What stands at `/workspace` or `/output`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// The size of what is mounted fresh; `None` where a directory of the host will be.
    pub(crate) fresh: Option<u64>,
    pub(crate) access: Access,
}

impl Place {
    fn of(tree: &Tree) -> Self {
        let fresh = match tree {
            Tree::Fresh { bytes, .. } => Some(*bytes),
            Tree::Host { .. } => None,
        };
        Self { fresh, access: tree.access() }
    }
}

/// Which filter the commands of a jail live under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FilterKind {
    pub(crate) profile: Profile,
    pub(crate) unix: UnixSockets,
}

impl Shape {
    pub(crate) fn of(spec: &Spec, host_id: u32) -> Self {
        let (workspace, output) = (Place::of(&spec.workspace), Place::of(&spec.output));
        // Somebody outside could have a socket in a directory of the host.
        let alone = workspace.fresh.is_some() && output.fresh.is_some();
        let unix = if alone { UnixSockets::Allowed } else { UnixSockets::Refused };
        Self {
            host_id,
            filter: FilterKind { profile: spec.profile, unix },
            network: spec.network.clone(),
            workspace,
            output,
            tmp: spec.limits.tmp_bytes,
        }
    }

    /// Whether all that is mounted is known already: then Landlock can be, too.
    pub(crate) fn is_whole(&self) -> bool {
        self.workspace.fresh.is_some() && self.output.fresh.is_some()
    }
}
