//! Taking the tree of a jail that runs: copied while it runs, then brought up to date while it stands still.

use std::collections::HashSet;
use std::time::Duration;

use ids::TreeId;
use snapshot::{Hot, Mirror, Mirrored, Owner};

use super::error::WorkspaceError;
use crate::exec::{AskError, Asker, Then};
use crate::layers::{LayerError, Layers, Scratch, blocking};

/// A tree that was written to, as it was at one moment.
#[derive(Debug)]
pub(crate) struct Captured {
    pub(crate) scratch: Scratch,
    /// How long the jail stood still.
    pub(crate) freeze: Duration,
    /// Of both passes.
    pub(crate) copied: Mirrored,
}

/// Where a jail sees the parts of a tree, and what they are called in it.
pub(crate) type Part = (&'static str, &'static str);

/// Asked between the two passes: whether to go on to where the jail stands still, and stays so.
pub(crate) type Stop = Box<dyn FnOnce() -> bool + Send>;

/// Copies a tree that a jail writes to. `shown` are the parts of it that the jail sees. With `stop` the jail is paused
/// from that moment on, unless that says no.
pub(crate) async fn captured(
    layers: &Layers,
    owner: Owner,
    upper: &TreeId,
    running: &Asker,
    shown: &[Part],
    stop: Option<Stop>,
) -> Result<Captured, CaptureError> {
    let scratch = layers.scratch(owner, false).await?;
    let trees = layers.trees();
    let (from, to) = (trees.files(upper), trees.files(&scratch.id));
    let before = running.mapped().await?;
    let (mut mirror, first) = blocking(move || {
        let mut mirror = Mirror::new(&from, &to)?;
        let first = mirror.pass(&Hot::These(&HashSet::new()))?;
        Ok::<_, std::io::Error>((mirror, first))
    })
    .await?;
    let then = if stop.is_some() { Then::StayStill } else { Then::GoOn };
    if stop.is_some_and(|stop| !stop()) {
        return Err(CaptureError::InUse);
    }
    let mut frozen = running.freeze().await?;
    let hot = before.zip(frozen.mapped.take()).map(|(before, now)| {
        // As seen from the top of the tree.
        let below = |path: Vec<u8>| {
            shown.iter().find_map(|(seen, part)| {
                let rest = path.strip_prefix(seen.as_bytes())?;
                Some([part.as_bytes(), rest].concat())
            })
        };
        before.into_iter().chain(now).filter_map(below).collect::<HashSet<_>>()
    });
    let second = blocking(move || mirror.pass(&hot.as_ref().map_or(Hot::All, Hot::These))).await?;
    let freeze = frozen.end(then)?;
    let copied = Mirrored {
        files: first.files + second.files,
        reflinked: first.reflinked + second.reflinked,
        bytes: first.bytes + second.bytes,
        left_out: second.left_out,
    };
    Ok(Captured { scratch, freeze, copied })
}

/// Why a running jail's tree was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CaptureError {
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error(transparent)]
    Layer(#[from] LayerError),
    #[error("somebody uses it")]
    InUse,
}

impl From<CaptureError> for WorkspaceError {
    fn from(error: CaptureError) -> Self {
        match error {
            CaptureError::Ask(error) => error.into(),
            CaptureError::Layer(error) => error.into(),
            CaptureError::InUse => Self::Busy,
        }
    }
}
