//! Reading an OCI image layout: from its index to the layers, each compared with its digest.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context as _, anyhow, bail};
use control::images::About;
use flate2::read::MultiGzDecoder;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};
use snapshot::{UnpackLimits, Whiteouts};

use crate::shelf::LIMITS;

/// Longer than any index, manifest or configuration is.
const LONGEST_DOCUMENT: u64 = 4 << 20;

/// How deep an index may point to others.
const DEEPEST: usize = 4;

const TAG: &str = "org.opencontainers.image.ref.name";

#[derive(Debug, Deserialize)]
struct Descriptor {
    #[serde(rename = "mediaType", default)]
    media_type: String,
    digest: String,
    platform: Option<Platform>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

/// An index has `manifests`, a manifest `config` and `layers`.
#[derive(Debug, Deserialize)]
struct Document {
    #[serde(default)]
    manifests: Vec<Descriptor>,
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
}

#[derive(Debug, Deserialize)]
struct Configuration {
    #[serde(default)]
    config: Runtime,
}

#[derive(Debug, Default, Deserialize)]
struct Runtime {
    #[serde(rename = "Env", default)]
    env: Option<Vec<String>>,
}

/// Unpacks the layers of an image, one over the other.
pub(super) fn unpack(layout: &Path, tag: Option<&str>, root: &Path) -> anyhow::Result<About> {
    let index = snapshot::open_regular(layout, b"index.json")
        .map_err(|_| anyhow!("not an OCI image layout: there is no index.json"))?;
    let index: Document = document(index).context("index.json")?;
    let (digest, manifest) = choose(layout, index, tag, DEEPEST)?;
    let config = manifest.config.ok_or_else(|| anyhow!("the manifest names no configuration"))?;
    let config: Configuration = whole(layout, &config.digest)?;
    let mut left = LIMITS;
    for layer in &manifest.layers {
        let unpacked =
            apply(layout, layer, root, left).with_context(|| format!("layer {}", layer.digest))?;
        left.entries = left.entries.saturating_sub(unpacked.entries);
        left.bytes = left.bytes.saturating_sub(unpacked.bytes);
    }
    let variables = config.config.env.unwrap_or_default();
    let path = variables.iter().find_map(|variable| variable.strip_prefix("PATH="));
    Ok(About { digest, path: path.map(str::to_owned) })
}

/// Follows an index to the one manifest that is meant.
fn choose(
    layout: &Path,
    index: Document,
    tag: Option<&str>,
    depth: usize,
) -> anyhow::Result<(String, Document)> {
    let machine = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let fits = |entry: &Descriptor| {
        let platform = entry.platform.as_ref();
        let tagged = entry.annotations.get(TAG).map(String::as_str);
        platform.is_none_or(|platform| platform.os == "linux" && platform.architecture == machine)
            && tag.is_none_or(|tag| tagged == Some(tag))
    };
    let mut fitting = index.manifests.into_iter().filter(fits);
    let chosen = fitting.next().ok_or_else(|| match tag {
        Some(tag) => anyhow!("it has no image tagged {tag:?} for linux/{machine}"),
        None => anyhow!("it has no image for linux/{machine}"),
    })?;
    if let Some(other) = fitting.next() {
        let name = |entry: &Descriptor| {
            entry.annotations.get(TAG).cloned().unwrap_or_else(|| entry.digest.clone())
        };
        bail!(
            "it has several images ({}, {}, …): say which with --tag",
            name(&chosen),
            name(&other)
        );
    }
    let document: Document = whole(layout, &chosen.digest)?;
    if document.manifests.is_empty() {
        return Ok((chosen.digest, document));
    }
    if depth == 0 {
        bail!("an index that points to others without end");
    }
    choose(layout, document, None, depth - 1)
}

fn apply(
    layout: &Path,
    layer: &Descriptor,
    root: &Path,
    left: UnpackLimits,
) -> anyhow::Result<snapshot::Unpacked> {
    let mut blob = Checked::open(layout, &layer.digest)?;
    let unpacked = match layer.media_type.as_str() {
        "application/vnd.oci.image.layer.v1.tar+gzip"
        | "application/vnd.docker.image.rootfs.diff.tar.gzip" => {
            snapshot::unpack(MultiGzDecoder::new(&mut blob), root, Whiteouts::Applied, left)?
        }
        "application/vnd.oci.image.layer.v1.tar"
        | "application/vnd.docker.image.rootfs.diff.tar" => {
            snapshot::unpack(&mut blob, root, Whiteouts::Applied, left)?
        }
        other => bail!(
            "its type is {other:?}; known are tar and tar+gzip: recompress it, as with `skopeo copy --dest-compress-format gzip`"
        ),
    };
    blob.finish()?;
    Ok(unpacked)
}

/// A whole JSON document that is a blob.
fn whole<T: DeserializeOwned>(layout: &Path, digest: &str) -> anyhow::Result<T> {
    let mut blob = Checked::open(layout, digest)?;
    let parsed = document(&mut blob).with_context(|| digest.to_owned())?;
    blob.finish()?;
    Ok(parsed)
}

fn document<T: DeserializeOwned>(from: impl Read) -> anyhow::Result<T> {
    let mut text = Vec::new();
    from.take(LONGEST_DOCUMENT + 1).read_to_end(&mut text)?;
    if text.len() as u64 > LONGEST_DOCUMENT {
        bail!("longer than {LONGEST_DOCUMENT} bytes");
    }
    Ok(serde_json::from_slice(&text)?)
}

/// A blob, hashed as it is read.
struct Checked {
    file: File,
    hash: Sha256,
    wanted: String,
}

impl Checked {
    fn open(layout: &Path, digest: &str) -> anyhow::Result<Self> {
        let hex = digest.strip_prefix("sha256:").filter(|hex| {
            hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        });
        let hex = hex.ok_or_else(|| anyhow!("{digest:?} is no sha256 digest"))?;
        let path = format!("blobs/sha256/{hex}");
        let file = snapshot::open_regular(layout, path.as_bytes())
            .with_context(|| format!("blob {digest} is missing, or no file"))?;
        Ok(Self { file, hash: Sha256::new(), wanted: hex.to_owned() })
    }

    /// Reads what is left; an error if all of it is not what the digest says.
    fn finish(mut self) -> anyhow::Result<()> {
        io::copy(&mut self, &mut io::sink())?;
        let found: String = self.hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
        if found != self.wanted {
            bail!("sha256:{} is not what it says: its content is sha256:{found}", self.wanted);
        }
        Ok(())
    }
}

impl Read for Checked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.hash.update(&buffer[..read]);
        Ok(read)
    }
}
