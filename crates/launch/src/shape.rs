//! What must be known of a jail before it is anybody's.

use serde::{Deserialize, Serialize};

use crate::message::{Access, Network, Profile, Spec, Tree};
use crate::seccomp::UnixSockets;

/// Jails of one shape can be made ready in advance, and are used by one host user only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Shape {
    pub(crate) host_id: u32,
    pub(crate) filter: FilterKind,
    pub(crate) network: Network,
    pub(crate) workspace: Place,
    pub(crate) output: Place,
    pub(crate) tmp: u64,
    /// Whether it will have a root of its own.
    pub(crate) image: bool,
    pub(crate) flavors: bool,
    /// Whether a file is to be put into the workspace.
    pub(crate) code: bool,
}

/// What stands at `/workspace` or `/output`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    pub(crate) ground: Ground,
    pub(crate) access: Access,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Ground {
    /// Mounted fresh, of this size.
    Fresh(u64),
    /// A directory of the host, known when there is a jail for it.
    Host,
    /// A part of an overlay, likewise.
    Layered,
}

impl Place {
    fn of(tree: &Tree) -> Self {
        let ground = match tree {
            Tree::Fresh { bytes, .. } => Ground::Fresh(*bytes),
            Tree::Host { .. } => Ground::Host,
            Tree::Layered { .. } => Ground::Layered,
        };
        Self { ground, access: tree.access() }
    }
}

/// Which filter the commands of a jail live under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FilterKind {
    pub(crate) profile: Profile,
    pub(crate) unix: UnixSockets,
}

impl Shape {
    pub(crate) fn of(spec: &Spec, host_id: u32) -> Self {
        let (workspace, output) = (Place::of(&spec.workspace), Place::of(&spec.output));
        // Somebody outside could have a socket in a directory of the host.
        let alone = workspace.ground != Ground::Host && output.ground != Ground::Host;
        let unix = if alone { UnixSockets::Allowed } else { UnixSockets::Refused };
        Self {
            host_id,
            filter: FilterKind { profile: spec.profile, unix },
            network: spec.network.clone(),
            workspace,
            output,
            tmp: spec.limits.tmp_bytes,
            image: spec.image.is_some(),
            flavors: !spec.flavors.is_empty(),
            code: spec.code.is_some(),
        }
    }

    /// Whether all that is mounted is known already: then nothing is left to init, and the launcher
    /// itself tells the stage its command.
    pub(crate) fn is_whole(&self) -> bool {
        let fresh = |place: &Place| matches!(place.ground, Ground::Fresh(_));
        !self.image && !self.flavors && [self.workspace, self.output].iter().all(fresh)
    }

    /// Whether Landlock can be in force before the assignment: if nothing is brought in later that needs
    /// rules of its own, and nothing written that they forbid.
    pub(crate) fn is_closed_early(&self) -> bool {
        self.is_whole() && !self.code
    }
}
