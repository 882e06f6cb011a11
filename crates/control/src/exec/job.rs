//! What is to be run: in whose name, on what ground, and with what lent to it.

use std::path::PathBuf;

use ids::{SessionId, TenantId};
use jail::{Access, Layers};
use store::JailKind;

use super::ask::Asked;
use super::held::Held;
use super::options::Settings;
use super::owner::Input;
use super::places::Place;

/// What to run, and for whom.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) tenant: TenantId,
    pub(crate) kind: JailKind,
    pub(crate) label: String,
    pub(crate) program: Program,
    pub(crate) session: Option<SessionAccess>,
    pub(crate) settings: Settings,
    /// More variables; the last word on a name counts.
    pub(crate) environment: Vec<(String, String)>,
    /// What the command reads; nothing if there is none.
    pub(crate) stdin: Option<Input>,
    pub(crate) ground: Ground,
    /// The repository it is over, and its ref, for the ledger.
    pub(crate) git: Option<(String, Option<String>)>,
    /// More directories of the host, as flavors are put in.
    pub(crate) directories: Vec<(String, PathBuf)>,
    /// The row of the jail that this one was forked from.
    pub(crate) parent: Option<i64>,
    /// Whether it has a row in the ledger. What is done for a job, not asked for by a caller, has none.
    pub(crate) listed: bool,
    /// Let go of when nothing of the jail is left.
    pub(crate) held: Held,
    /// Taken before, for several jobs at once.
    pub(crate) place: Option<Place>,
    /// Through which others ask the owner; made before, so that they can from the first moment.
    pub(crate) asked: Option<Asked>,
}

impl Job {
    /// A job in a fresh jail, with nothing more than it must have.
    pub(crate) fn new(
        tenant: TenantId,
        kind: JailKind,
        label: impl Into<String>,
        program: Program,
        settings: Settings,
    ) -> Self {
        Self {
            tenant,
            kind,
            label: label.into(),
            program,
            session: None,
            settings,
            environment: Vec::new(),
            stdin: None,
            ground: Ground::default(),
            git: None,
            directories: Vec::new(),
            parent: None,
            listed: true,
            held: Held::default(),
            place: None,
            asked: None,
        }
    }
}

/// What stands at `/workspace` and `/output`.
#[derive(Debug, Clone, Default)]
pub(crate) enum Ground {
    /// Both fresh, the workspace closed to writing.
    #[default]
    Fresh,
    /// Both parts of an overlay; `/output` is writable.
    Layered { layers: Layers, workspace: Access },
    /// The workspace fresh and closed, `/output` a part of an overlay.
    LayeredOutput { layers: Layers },
}

/// A session as its jails get it.
#[derive(Debug, Clone)]
pub(crate) struct SessionAccess {
    pub(crate) id: SessionId,
    pub(crate) environment: Vec<(String, String)>,
}

#[derive(Debug)]
pub(crate) enum Program {
    Command { program: String, arguments: Vec<String> },
    Code(Code),
}

/// A file and the runtime that runs it.
#[derive(Debug, Clone)]
pub(crate) struct Code {
    pub(crate) runtime: &'static str,
    pub(crate) file: &'static str,
    /// `None` if it is in the workspace already.
    pub(crate) text: Option<String>,
}

impl Program {
    /// What must be there for it to run.
    pub(super) fn runtime(&self) -> Option<&'static str> {
        match self {
            Self::Command { .. } => None,
            Self::Code(code) => Some(code.runtime),
        }
    }
}
