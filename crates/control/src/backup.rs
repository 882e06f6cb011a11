//! `POST /v1/backup`: a consistent copy of the state while the server runs.
//!
//! The database is copied first, in one piece. Layers never change, and each workspace is copied at a moment of
//! its own, a running one while it stands still. So the copy is one that a server could have left behind.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use axum::extract::State;
use httpkit::{ApiError, Json, Kind};
use ids::TreeId;
use serde::{Deserialize, Serialize};
use snapshot::{Hot, Mirror};
use store::{Page, Whose};
use utoipa::ToSchema;

use crate::app::App;
use crate::caller::Caller;
use crate::edge::internal;
use crate::layers::{LayerError, blocking};
use crate::openapi::ErrorBody;

/// Workspaces that are read at once.
const PAGE: u32 = 500;

/// Where to copy to.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct BackupRequest {
    /// An absolute path on the server's machine where nothing is yet.
    directory: String,
}

/// What was copied.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BackupDone {
    /// It is a state directory, but for `master.key`, without which what is sealed in it does not open: keep
    /// that apart. Flavors are not copied.
    directory: String,
    layers: u64,
    workspaces: u64,
}

/// `POST /v1/backup`
#[utoipa::path(post, path = "/v1/backup", tag = "admin", request_body = BackupRequest, responses(
    (status = 200, description = "Copied", body = BackupDone),
    (status = 400, description = "Not an absolute path, or something is there", body = ErrorBody),
    (status = 404, description = "Not an admin", body = ErrorBody),
))]
pub(crate) async fn create(
    State(app): State<App>,
    caller: Caller,
    Json(body): Json<BackupRequest>,
) -> Result<axum::Json<BackupDone>, ApiError> {
    if !caller.is_admin() {
        return Err(ApiError::said(Kind::NotFound, "no such route"));
    }
    let directory = PathBuf::from(&body.directory);
    make(&directory)?;
    match copy(&app, &directory).await {
        Ok((layers, workspaces)) => {
            Ok(axum::Json(BackupDone { directory: body.directory, layers, workspaces }))
        }
        Err(error) => {
            // Half a copy must not be taken for a whole one.
            drop(blocking(move || fs::remove_dir_all(directory)).await);
            Err(error)
        }
    }
}

fn make(directory: &Path) -> Result<(), ApiError> {
    let invalid = |text: &str| ApiError::said(Kind::Invalid, format!("directory: {text}"));
    if !directory.is_absolute() {
        return Err(invalid("must be an absolute path"));
    }
    match fs::DirBuilder::new().mode(0o700).create(directory) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            Err(invalid("something is there already"))
        }
        Err(error) => Err(invalid(&format!("cannot be made ({})", error.kind()))),
    }
}

async fn copy(app: &App, directory: &Path) -> Result<(u64, u64), ApiError> {
    let layers = app.workspaces.layers();
    let trees = layers.trees();
    // What is known now stays until it is copied.
    let mut pins = Vec::new();
    let mut known: BTreeSet<TreeId> = BTreeSet::new();
    let pin = async |known: &mut BTreeSet<TreeId>, pins: &mut Vec<_>| {
        for tree in app.store.trees().await.map_err(internal)? {
            pins.push(trees.pin(&tree));
            known.insert(tree);
        }
        Ok::<_, ApiError>(())
    };
    pin(&mut known, &mut pins).await?;
    app.store.copy_to(&directory.join("agentjail.db")).await.map_err(internal)?;
    // And what came while the database was being copied.
    pin(&mut known, &mut pins).await?;
    let mut workspaces = 0;
    for offset in (0..).step_by(PAGE as usize) {
        let page = Page { limit: PAGE, offset };
        let listed = app.store.workspaces(Whose::Everyone, None, page).await.map_err(internal)?;
        if listed.rows.is_empty() {
            break;
        }
        for workspace in listed.rows {
            // Written to: not as it is, but as it was at one moment.
            known.remove(&workspace.upper);
            let to = directory.join("trees").join(workspace.upper.as_str());
            app.workspaces.copy_upper(&workspace.id, to).await?;
            workspaces += 1;
        }
    }
    let copied = known.len() as u64;
    for tree in known {
        let (files, manifest) = (trees.files(&tree), trees.manifest(&tree));
        let to = directory.join("trees").join(tree.as_str());
        blocking(move || {
            if !files.exists() {
                return Ok(());
            }
            fs::create_dir_all(to.join("files"))?;
            Mirror::new(&files, &to.join("files"))?.pass(&Hot::All)?;
            if manifest.exists() {
                fs::copy(manifest, to.join("manifest"))?;
            }
            Ok::<_, std::io::Error>(())
        })
        .await
        .map_err(|error: LayerError| ApiError::internal(error))?;
    }
    Ok((copied, workspaces))
}
