//! What code runs on: a fresh jail, or repositories with the code above them.

use std::io::Write as _;
use std::sync::Arc;

use ids::TenantId;
use jail::Access;

use crate::exec::{Code, Ground, Job, Place};
use crate::git::{Destination, Repository};
use crate::layers::{Chain, LayerError, Scratch, blocking};
use crate::workspaces::{WorkspaceError, Workspaces};

/// Repositories that were cloned for a run, or for a family of runs.
#[derive(Debug)]
pub(super) struct Cloned(Arc<Scratch>);

/// Clones what a run asked for; nothing if it asked for nothing. A place that was taken will do for it.
pub(super) async fn cloned(
    workspaces: &Workspaces,
    tenant: &TenantId,
    repositories: &[Repository],
    place: Option<Place>,
) -> Result<Option<Cloned>, WorkspaceError> {
    if repositories.is_empty() {
        return Ok(None);
    }
    let owner = workspaces.owner_of(tenant).await?;
    let scratch = Arc::new(workspaces.layers().scratch(owner, true).await?);
    let layers = workspaces.layers().overlay(&Chain::default(), &scratch.id);
    let to = Destination {
        tenant: tenant.clone(),
        layers,
        tree: Arc::clone(&scratch),
        place: place.map(Arc::new),
    };
    workspaces.clone_all(repositories, &to).await?;
    Ok(Some(Cloned(scratch)))
}

/// Trees below a run's own, the topmost first.
pub(super) type Below = Vec<Arc<Scratch>>;

/// Puts a run on top of trees. Gives the tree it writes to.
///
/// Over repositories, the code is a layer of its own: no link of theirs can stand where it is written.
pub(super) async fn put_on(
    workspaces: &Workspaces,
    job: &mut Job,
    code: Code,
    cloned: Option<&Cloned>,
    below: Below,
) -> Result<Arc<Scratch>, WorkspaceError> {
    let owner = workspaces.owner_of(&job.tenant).await?;
    let layers = workspaces.layers();
    let mut trees = below;
    let mut code = code;
    if let Some(Cloned(repositories)) = cloned {
        let above = layers.scratch(owner, true).await?;
        if let Some(text) = code.text.take() {
            let file = layers.trees().files(&above.id).join("workspace").join(code.file);
            blocking(move || {
                let file = std::fs::File::options().write(true).create_new(true).open(file);
                file.and_then(|mut file| file.write_all(text.as_bytes()))
            })
            .await?;
        }
        trees.insert(0, Arc::new(above));
        trees.push(Arc::clone(repositories));
    }
    let upper = Arc::new(layers.scratch(owner, trees.is_empty()).await?);
    let overlay = jail::Layers {
        lower: trees.iter().map(|tree| layers.trees().files(&tree.id)).collect(),
        upper: layers.trees().directory(&upper.id),
        home: false,
    };
    job.ground = if cloned.is_some() {
        Ground::Layered { layers: overlay, workspace: Access::ReadOnly }
    } else {
        Ground::LayeredOutput { layers: overlay }
    };
    job.program = crate::exec::Program::Code(code);
    for tree in trees {
        job.held.keep(tree);
    }
    job.held.keep(Arc::clone(&upper));
    Ok(upper)
}

impl From<LayerError> for crate::exec::ExecError {
    fn from(error: LayerError) -> Self {
        Self::Layers(Box::new(error))
    }
}
