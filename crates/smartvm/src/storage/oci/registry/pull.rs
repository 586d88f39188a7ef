//! From an image's name to its layers on disk.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::task::JoinSet;

use super::session::Session;
use super::{Event, Registry, Tell};
use crate::spec::Arch;
use crate::storage::checksum::sha256_of;
use crate::storage::download::{self, Download};
use crate::storage::oci::local::{image_of, parsed};
use crate::storage::oci::model::{Descriptor, MAX_DEPTH, MOST_JSON, Manifest, oci_name};
use crate::storage::oci::source::{sha256_digest, verified};
use crate::storage::oci::{OciImage, Reference, Wanted};
use crate::storage::require_free;
use crate::storage::store::Layers;
use crate::vm::blocking;
use crate::{Error, ErrorKind, Result};

/// The manifests that are understood.
const MANIFESTS: &str = "application/vnd.oci.image.manifest.v1+json, \
     application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json, \
     application/vnd.docker.distribution.manifest.list.v2+json";
/// Largest layer, in bytes.
const MOST_LAYER_BYTES: u64 = 64 << 30;

/// An image that a registry has, and that this machine can run.
#[derive(Debug, Clone)]
pub struct Found {
    reference: Reference,
    arch: Arch,
    digest: String,
    manifest: Arc<Manifest>,
}

impl Found {
    /// The digest of its manifest, for the architecture.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// What is to be fetched for it, in bytes, if nothing is there.
    pub fn layer_bytes(&self) -> u64 {
        let sizes = self.manifest.layers.iter().map(|layer| layer.size);
        sizes.fold(0, u64::saturating_add)
    }
}

impl Registry {
    /// Finds an image: what its name stands for now, for this architecture.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] where the registry has none, [`ErrorKind::Denied`] where it
    /// doesn't tell, [`ErrorKind::Invalid`] for what isn't an image or is for other machines,
    /// [`ErrorKind::Corrupt`] for what isn't as its digest says.
    pub async fn find(&self, reference: &Reference, arch: Arch) -> Result<Found> {
        let mut session = Session::open(self, reference).await?;
        let mut version = reference.version().to_owned();
        for _ in 0..=MAX_DEPTH {
            let (digest, manifest) = session.manifest(&version).await?;
            if manifest.config.is_some() {
                return Ok(Found {
                    reference: reference.clone(),
                    arch,
                    digest,
                    manifest: Arc::new(manifest),
                });
            }
            version = choose(&manifest, reference, arch)?.digest.clone();
        }
        let what = format!("the indexes of {reference} are nested too deep");
        Err(Error::new(ErrorKind::Invalid, what))
    }

    /// Fetches the layers that aren't there yet, several at once. They stay as long as the
    /// image that is returned.
    ///
    /// # Errors
    /// As for [`Registry::find`] and [`crate::storage::download::Downloader::file`]. What came
    /// of a layer is resumed the next time.
    pub async fn fetch(&self, found: &Found, layers: Layers, tell: &Tell) -> Result<OciImage> {
        let mut session = Session::open(self, &found.reference).await?;
        let Some(config) = &found.manifest.config else {
            let what = format!("{} is an index, not an image", found.digest);
            return Err(Error::new(ErrorKind::Invalid, what));
        };
        let bytes = session.blob(config).await?;
        // All that can be refused is, before gigabytes are fetched in vain.
        let image = found.image(&bytes, &layers)?;
        self.fetch_layers(&mut session, found, &layers, tell)
            .await?;
        Ok(image.held_by(layers))
    }

    async fn fetch_layers(
        &self,
        session: &mut Session<'_>,
        found: &Found,
        layers: &Layers,
        tell: &Tell,
    ) -> Result<()> {
        // One layer may be there twice.
        let mut missing: BTreeMap<&str, &Descriptor> = BTreeMap::new();
        for layer in &found.manifest.layers {
            missing.insert(sha256_digest(&layer.digest)?, layer);
        }
        let new = missing
            .iter()
            .filter(|(sha256, _)| !layers.path(sha256).exists());
        let bytes = new
            .map(|(_, layer)| layer.size)
            .fold(0, u64::saturating_add);
        let dir = layers.dir().to_owned();
        blocking(move || require_free(&dir, bytes, "the image's layers")).await?;
        let mut waiting: Vec<Download> = Vec::new();
        for (sha256, layer) in missing {
            layers.touch(sha256);
            let download = Download::builder()
                .url(session.url(&format!("blobs/{}", layer.digest)))
                .target(layers.path(sha256))
                .sha256(sha256)
                .size_bytes(layer.size)
                .most_bytes(MOST_LAYER_BYTES)
                .build();
            waiting.push(download);
        }
        // The largest first: it is what is waited for in the end.
        waiting.sort_by_key(|download| download.size_bytes);
        let mut renewed = false;
        let mut running = JoinSet::new();
        loop {
            while running.len() < self.at_once
                && let Some(mut download) = waiting.pop()
            {
                download.authorization = session.who();
                let (downloader, tell) = (self.downloader.clone(), layer_tell(&download, tell));
                running.spawn(async move {
                    let done = downloader.file(&download, &tell).await;
                    (download, done)
                });
            }
            let Some(joined) = running.join_next().await else {
                return Ok(());
            };
            let (download, done) =
                joined.map_err(|e| Error::new(ErrorKind::Io, "a worker failed").because(e))?;
            match done {
                // Tokens that were good for one were good once.
                Ok(_) => renewed = false,
                Err(e) if e.kind() == ErrorKind::Denied => {
                    let stale = download.authorization == session.who();
                    if stale && std::mem::replace(&mut renewed, true) {
                        return Err(session.told(e));
                    }
                    if stale {
                        session.renew().await?;
                    }
                    waiting.push(download);
                }
                Err(e) => return Err(session.told(e)),
            }
            if !running.is_empty() || !waiting.is_empty() {
                continue;
            }
            return Ok(());
        }
    }
}

impl Found {
    fn image(&self, config: &[u8], layers: &Layers) -> Result<OciImage> {
        let wanted = Wanted::for_arch(self.arch);
        let config = |_: &str| Ok(config.to_vec());
        let layer = |layer: &Descriptor| {
            let path = layers.path(sha256_digest(&layer.digest)?);
            Ok((path, 0, layer.size))
        };
        let mut image = image_of(&self.manifest, &self.digest, &wanted, config, layer)?;
        image.name = Some(self.reference.to_string());
        Ok(image)
    }
}

impl Session<'_> {
    /// A manifest by tag or by digest, with its digest.
    async fn manifest(&mut self, version: &str) -> Result<(String, Manifest)> {
        let what = format!("manifests/{version}");
        let document = self.document(&what, MANIFESTS, MOST_JSON).await?;
        let claimed = document
            .headers
            .get("docker-content-digest")
            .and_then(|value| value.to_str().ok())
            .filter(|claimed| sha256_digest(claimed).is_ok());
        let by_digest = Some(version).filter(|version| version.contains(':'));
        let bytes = match by_digest.or(claimed) {
            Some(digest) => verified(digest, document.bytes)?,
            None => document.bytes,
        };
        let digest = format!("sha256:{}", sha256_of(&bytes));
        let manifest: Manifest = parsed(&bytes, &format!("the manifest of {}", self.reference))?;
        if manifest.config.is_none() && manifest.manifests.is_empty() {
            let media = document.headers.get(reqwest::header::CONTENT_TYPE);
            let media = media
                .and_then(|value| value.to_str().ok())
                .unwrap_or("none");
            let what = format!("{} is no image, but of the type {media:?}", self.reference);
            return Err(Error::new(ErrorKind::Invalid, what)
                .hint("images have OCI manifests, or Docker's of version 2"));
        }
        Ok((digest, manifest))
    }

    /// A small piece.
    async fn blob(&mut self, piece: &Descriptor) -> Result<Vec<u8>> {
        sha256_digest(&piece.digest)?;
        let what = format!("blobs/{}", piece.digest);
        let document = self.document(&what, "", MOST_JSON).await?;
        verified(&piece.digest, document.bytes)
    }
}

/// The manifest in an index that this machine can run.
fn choose<'a>(index: &'a Manifest, reference: &Reference, arch: Arch) -> Result<&'a Descriptor> {
    let fits = |one: &&Descriptor| {
        let platform = one.platform.as_ref();
        platform.is_none_or(|platform| platform.is(arch))
    };
    index.manifests.iter().find(fits).ok_or_else(|| {
        let mut there: Vec<String> = index
            .manifests
            .iter()
            .filter_map(|one| one.platform.as_ref())
            .map(|one| format!("{}/{}", one.os, one.architecture))
            .filter(|name| name != "unknown/unknown")
            .collect();
        there.sort();
        there.dedup();
        Error::new(
            ErrorKind::Invalid,
            format!(
                "{reference} has nothing for linux/{}; it has {}",
                oci_name(arch),
                there.join(", ")
            ),
        )
        .hint("choose an image for this architecture")
    })
}

fn layer_tell(download: &Download, tell: &Tell) -> download::Tell {
    let sha256 = download.sha256.clone().unwrap_or_default();
    let (digest, tell) = (format!("sha256:{sha256}"), Arc::clone(tell));
    Arc::new(move |event| {
        let digest = digest.clone();
        tell(Event::Layer { digest, event });
    })
}
