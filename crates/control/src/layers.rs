//! Layers of all tenants: the rows, the trees and the pool kept in step.
//!
//! The order is always the same: a tree is pinned, then made, then known to a row, then let go. So whatever
//! is on disk and neither pinned nor known is garbage, also after a crash.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex as StdMutex, PoisonError};

use ids::{TenantId, TreeId};
use serde_json::{Value, json};
use snapshot::{Indexed, LeftOut, ManifestError, Owner, Pin, Pool, Stratum, Trees, View};
use store::{Layer, LayerTotals, Store, StoreError};
use tokio::sync::{Mutex, RwLock};
use tokio::task::JoinError;
use tokio_util::task::TaskTracker;

/// A chain longer than this is squashed by and by: each layer costs every mount a little.
const DEEP: usize = 16;

/// A chain this long is squashed before it grows: it could not be mounted.
const TOO_DEEP: usize = 100;

/// Why a layer could not be had, or made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LayerError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("a tree could not be read or written")]
    Disk(#[from] io::Error),
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    #[error("a layer that others stand on is missing")]
    Missing,
    #[error("work on a tree was broken off")]
    Broken(#[from] JoinError),
}

/// What of a workspace is immutable: its layers, kept as long as this is.
#[derive(Debug, Default)]
pub(crate) struct Chain {
    /// The topmost first.
    pub(crate) layers: Vec<Layer>,
    _pins: Vec<Pin>,
}

/// A tree that nothing will know: removed when this is dropped.
#[derive(Debug)]
pub(crate) struct Scratch {
    pub(crate) id: TreeId,
    trees: Arc<Trees>,
    pin: Option<Pin>,
    kept: AtomicBool,
}

/// Layers, trees and pools. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Layers(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    trees: Arc<Trees>,
    pool: PathBuf,
    /// By tenant: held to read by those who add to its pool, until a row names what they added.
    adding: StdMutex<HashMap<TenantId, Arc<RwLock<()>>>>,
    /// What was begun is done to its end, also if nobody waits for it any more.
    tasks: TaskTracker,
    /// One worker a layer.
    at_work: StdMutex<HashMap<TreeId, Arc<Mutex<()>>>>,
}

impl Layers {
    pub(crate) fn new(store: Store, trees: Arc<Trees>, pool: PathBuf, tasks: TaskTracker) -> Self {
        let (adding, at_work) = (StdMutex::default(), StdMutex::default());
        Self(Arc::new(Inner { store, trees, pool, adding, tasks, at_work }))
    }

    pub(crate) fn trees(&self) -> &Arc<Trees> {
        &self.0.trees
    }

    /// The layers of a top one and below it, pinned.
    pub(crate) async fn chain(&self, top: Option<&TreeId>) -> Result<Chain, LayerError> {
        let Some(top) = top else { return Ok(Chain::default()) };
        loop {
            let layers = self.0.store.chain(top).await?;
            if layers.is_empty() {
                return Err(LayerError::Missing);
            }
            let pins = layers.iter().map(|layer| self.0.trees.pin(&layer.tree)).collect();
            // One may have been squashed before it was pinned.
            if self.0.store.chain(top).await? == layers {
                return Ok(Chain { layers, _pins: pins });
            }
        }
    }

    /// What a jail mounts: a chain, and a tree to write to.
    pub(crate) fn overlay(&self, chain: &Chain, upper: &TreeId) -> jail::Layers {
        jail::Layers {
            lower: chain.layers.iter().map(|layer| self.0.trees.files(&layer.tree)).collect(),
            upper: self.0.trees.directory(upper),
            home: false,
        }
    }

    /// A tree to write to, which is gone when what is given is.
    pub(crate) async fn scratch(&self, owner: Owner, alone: bool) -> Result<Scratch, LayerError> {
        let id = TreeId::random();
        let pin = Some(self.0.trees.pin(&id));
        let trees = Arc::clone(&self.0.trees);
        let kept = AtomicBool::new(false);
        let scratch = Scratch { id: id.clone(), trees: Arc::clone(&trees), pin, kept };
        blocking(move || trees.make(&id, owner, alone)).await?;
        Ok(scratch)
    }

    /// Writes the manifest of a layer, and those below it, if they are not written; gives what the
    /// topmost tells in sum.
    pub(crate) async fn index(&self, top: &TreeId) -> Result<LayerTotals, LayerError> {
        let chain = self.chain(Some(top)).await?;
        let mut totals = None;
        for n in (0..chain.layers.len()).rev() {
            totals = Some(if let Some(totals) = &chain.layers[n].totals {
                totals.clone()
            } else {
                let (this, id) = (self.clone(), chain.layers[n].id.clone());
                self.0.tasks.spawn(async move { this.index_one(&id).await }).await??
            });
        }
        totals.ok_or(LayerError::Missing)
    }

    async fn index_one(&self, id: &TreeId) -> Result<LayerTotals, LayerError> {
        let work = self.worker(id);
        let _working = work.lock().await;
        let chain = self.chain(Some(id)).await?;
        let layer = chain.layers.first().ok_or(LayerError::Missing)?;
        if let Some(totals) = &layer.totals {
            return Ok(totals.clone());
        }
        let adding = self.adding(&layer.tenant);
        let _adding = adding.read().await;
        let (files, manifest) =
            (self.0.trees.files(&layer.tree), self.0.trees.manifest(&layer.tree));
        let pool = self.pool_of(&layer.tenant);
        let target = manifest.clone();
        let indexed = blocking(move || {
            // Before contents are shared; what a manifest does not tell of is kept all the same.
            let measured = snapshot::measure(&files)?;
            let indexed = snapshot::index(&files, &target, &pool)?;
            Ok::<_, io::Error>(Indexed { bytes: indexed.bytes.max(measured.bytes), ..indexed })
        })
        .await?;
        let top =
            Stratum { manifest, hash: indexed.manifest, files: self.0.trees.files(&layer.tree) };
        let mut strata = vec![top];
        strata.extend(self.strata_of(&chain.layers[1..])?);
        let totals = totals(indexed, strata).await?;
        self.0.store.set_manifest(id, &totals).await?;
        // Kept until here, so that the tree was.
        drop(chain);
        self.forget_worker(id);
        Ok(totals)
    }

    /// What is seen through a layer, ready to be read; the chain must be kept meanwhile.
    pub(crate) async fn strata(&self, top: &TreeId) -> Result<(Vec<Stratum>, Chain), LayerError> {
        self.index(top).await?;
        let chain = self.chain(Some(top)).await?;
        Ok((self.strata_of(&chain.layers)?, chain))
    }

    fn strata_of(&self, layers: &[Layer]) -> Result<Vec<Stratum>, LayerError> {
        let stratum = |layer: &Layer| {
            let hash = layer.totals.as_ref().map(|totals| totals.manifest.as_slice());
            let hash = hash.and_then(|hash| hash.try_into().ok()).ok_or(LayerError::Missing)?;
            let manifest = self.0.trees.manifest(&layer.tree);
            Ok(Stratum { manifest, hash, files: self.0.trees.files(&layer.tree) })
        };
        layers.iter().map(stratum).collect()
    }

    /// Whether a chain must be squashed before it grows.
    pub(crate) fn is_too_deep(chain: &Chain) -> bool {
        chain.layers.len() >= TOO_DEEP
    }

    /// Writes what is missing of a layer, and squashes its chain if that is long.
    pub(crate) async fn tend(&self, top: &TreeId) -> Result<(), LayerError> {
        self.index(top).await?;
        if self.chain(Some(top)).await?.layers.len() > DEEP {
            self.squash(top).await?;
            self.collect().await?;
        }
        Ok(())
    }

    /// Puts one tree in the place of a chain.
    pub(crate) async fn squash(&self, top: &TreeId) -> Result<(), LayerError> {
        let (this, top) = (self.clone(), top.clone());
        self.0.tasks.spawn(async move { this.squash_now(&top).await }).await?
    }

    async fn squash_now(&self, top: &TreeId) -> Result<(), LayerError> {
        let (strata, chain) = self.strata(top).await?;
        let work = self.worker(top);
        let _working = work.lock().await;
        if self.0.store.chain(top).await? != chain.layers || chain.layers.len() < 2 {
            return Ok(());
        }
        // What a manifest does not tell of would be lost.
        let closed = |layer: &Layer| {
            let left_out = layer.totals.as_ref().map(|totals| &totals.left_out["untold"]);
            left_out.and_then(Value::as_u64).unwrap_or_default() > 0
        };
        if chain.layers.iter().any(closed) {
            return Ok(());
        }
        let layer = chain.layers.first().ok_or(LayerError::Missing)?;
        let tree = TreeId::random();
        let pin = self.0.trees.pin(&tree);
        let owner = fs::metadata(self.0.trees.files(&layer.tree))?.uid();
        let owner = rustix::process::geteuid().is_root().then_some(owner);
        let (files, manifest) = (self.0.trees.files(&tree), self.0.trees.manifest(&tree));
        let (trees, made) = (Arc::clone(&self.0.trees), tree.clone());
        let squashed = blocking(move || {
            trees.make(&made, owner, false)?;
            Ok::<_, LayerError>(snapshot::squash(&strata, &files, &manifest)?)
        })
        .await?;
        let old = layer.totals.clone().ok_or(LayerError::Missing)?;
        let totals =
            LayerTotals { manifest: squashed.manifest.to_vec(), own_bytes: squashed.bytes, ..old };
        self.0.store.squash(top, &tree, &totals).await?;
        drop(pin);
        self.forget_worker(top);
        Ok(())
    }

    /// Writes manifests that a former server did not come to.
    pub(crate) async fn catch_up(&self) -> Result<(), LayerError> {
        for layer in self.0.store.layers_without_manifest().await? {
            if let Err(error) = self.index(&layer.id).await {
                tracing::error!(
                    layer = %layer.id,
                    error = &error as &dyn std::error::Error,
                    "a layer's manifest cannot be written; its snapshots cannot be read"
                );
            }
        }
        Ok(())
    }

    /// Removes what nothing refers to: rows, trees, objects.
    pub(crate) async fn collect(&self) -> Result<(), LayerError> {
        while self.0.store.delete_unreferenced_layers().await? > 0 {}
        let (trees, store) = (Arc::clone(&self.0.trees), self.0.store.clone());
        let runtime = tokio::runtime::Handle::current();
        let removed = tokio::task::spawn_blocking(move || {
            let known = || runtime.block_on(store.trees()).map(HashSet::from_iter);
            trees.sweep::<StoreError>(known)
        });
        if removed.await??? > 0 {
            self.collect_objects().await?;
        }
        Ok(())
    }

    /// Removes objects that no layer of their tenant names.
    pub(crate) async fn collect_objects(&self) -> Result<(), LayerError> {
        let tenants = match fs::read_dir(&self.0.pool) {
            Ok(tenants) => tenants,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        for tenant in tenants {
            let name = tenant?.file_name();
            let Some(tenant) = name.to_str().and_then(|name| name.parse::<TenantId>().ok()) else {
                continue;
            };
            let adding = self.adding(&tenant);
            let _nobody_adds = adding.write().await;
            let layers = self.0.store.layers_of(&tenant).await?;
            let layers: Vec<Layer> =
                layers.into_iter().filter(|layer| layer.totals.is_some()).collect();
            let (strata, pool) = (self.strata_of(&layers)?, self.pool_of(&tenant));
            blocking(move || {
                let mut kept = HashSet::new();
                for stratum in strata {
                    // One that was removed meanwhile names nothing any more.
                    let Ok(mut view) = View::open(std::slice::from_ref(&stratum)) else { continue };
                    while let Some(seen) = view.next()? {
                        if let snapshot::Kind::File { hash, .. } = seen.entry.kind {
                            kept.insert(hash);
                        }
                    }
                }
                pool.sweep(&kept)?;
                Ok::<_, LayerError>(())
            })
            .await?;
        }
        Ok(())
    }

    /// The pool of one tenant.
    pub(crate) fn pool_of(&self, tenant: &TenantId) -> Pool {
        Pool::new(self.0.pool.join(tenant.as_str()))
    }

    fn adding(&self, tenant: &TenantId) -> Arc<RwLock<()>> {
        let mut adding = self.0.adding.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(adding.entry(tenant.clone()).or_default())
    }

    fn worker(&self, id: &TreeId) -> Arc<Mutex<()>> {
        let mut at_work = self.0.at_work.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(at_work.entry(id.clone()).or_default())
    }

    fn forget_worker(&self, id: &TreeId) {
        self.0.at_work.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }
}

impl Scratch {
    /// Keeps the tree, which a row knows from now on.
    pub(crate) fn keep(&self) {
        self.kept.store(true, Ordering::Relaxed);
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let Some(pin) = self.pin.take().filter(|_| !*self.kept.get_mut()) else { return };
        let (trees, id) = (Arc::clone(&self.trees), self.id.clone());
        let remove = move || {
            if let Err(error) = trees.remove(&id) {
                tracing::warn!(tree = %id, %error, "a tree was not removed; the next start will");
            }
            drop(pin);
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(remove)),
            Err(_) => remove(),
        }
    }
}

/// Counts what is seen.
async fn totals(indexed: Indexed, strata: Vec<Stratum>) -> Result<LayerTotals, LayerError> {
    blocking(move || {
        let (mut bytes, mut files) = (0, 0);
        let mut view = View::open(&strata)?;
        while let Some(seen) = view.next()? {
            if let snapshot::Kind::File { size, .. } = seen.entry.kind {
                bytes += size;
                files += 1;
            }
        }
        Ok::<_, LayerError>(LayerTotals {
            manifest: indexed.manifest.to_vec(),
            bytes,
            files,
            own_bytes: indexed.bytes,
            left_out: left_out(&indexed.left_out),
        })
    })
    .await
}

/// As shown to a caller.
pub(crate) fn left_out(left_out: &LeftOut) -> Value {
    let first = left_out
        .first
        .iter()
        .map(|(path, why)| json!({ "path": String::from_utf8_lossy(path), "reason": why }));
    let first = first.collect::<Vec<_>>();
    json!({ "count": left_out.count, "untold": left_out.untold, "first": first })
}

/// Does what waits for the disk where it holds up nobody.
pub(crate) async fn blocking<T: Send + 'static, E: Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, LayerError>
where
    LayerError: From<E>,
{
    Ok(tokio::task::spawn_blocking(work).await??)
}
