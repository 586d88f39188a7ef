//! Bundles of a hosted manifest, by URL or by path.

use std::path::{Path, PathBuf};

use url::Url;

use super::assemble::{Origin, Part};
use super::{BaseImages, Tell, other_arch};
use crate::spec::{self, Arch, BaseImagePreset, BaseImageSource, BaseImageSourceKind};
use crate::storage::bundle::parse_manifest;
use crate::storage::store::{Held, Origin as StoreOrigin};
use crate::storage::{ArtifactManifest, BundleManifest};
use crate::vm::blocking;
use crate::{Error, ErrorKind, Result};

const MOST_BYTES: u64 = 1 << 20;

/// What a manifest's own paths are relative to.
enum Base {
    Url(Url),
    Dir(PathBuf),
}

impl BaseImages {
    pub(super) async fn hosted_by_url(
        &self,
        url: &str,
        arch: Arch,
        force: bool,
        tell: &Tell,
    ) -> Result<Held> {
        let found = self.downloader.text(url, MOST_BYTES).await?;
        let manifest = parse_manifest(&found.text, Path::new(url))?;
        let base = Url::parse(&found.url).map_err(|e| {
            Error::new(ErrorKind::Invalid, format!("{url:?} isn't a URL")).because(e)
        })?;
        let source = BaseImageSource::builder().manifest_url(url).build();
        self.hosted(manifest, &Base::Url(base), source, arch, force, tell)
            .await
    }

    pub(super) async fn hosted_by_path(
        &self,
        path: PathBuf,
        arch: Arch,
        force: bool,
        tell: &Tell,
    ) -> Result<Held> {
        let (manifest, path) = blocking(move || {
            let path = path
                .canonicalize()
                .map_err(|e| Error::io("opening the manifest", &path, e))?;
            let (text, _) = spec::load::read(&path)?;
            Ok((parse_manifest(&text, &path)?, path))
        })
        .await?;
        let dir = path.parent().unwrap_or(Path::new("/")).to_owned();
        let source = BaseImageSource::builder().manifest_path(path).build();
        self.hosted(manifest, &Base::Dir(dir), source, arch, force, tell)
            .await
    }

    async fn hosted(
        &self,
        manifest: BundleManifest,
        base: &Base,
        mut source: BaseImageSource,
        arch: Arch,
        force: bool,
        tell: &Tell,
    ) -> Result<Held> {
        if manifest.arch != arch {
            let what = format!("the hosted bundle {}", manifest.bundle_id);
            return Err(other_arch(&what, manifest.arch, arch));
        }
        let mut parts = Vec::new();
        for (role, artifact) in manifest.artifacts() {
            parts.push((role, part(role, artifact, base)?));
        }
        source.kind = Some(BaseImageSourceKind::HostedManifest);
        for (role, part) in &parts {
            match *role {
                "kernel" => {
                    source.kernel_url.clone_from(&part.url);
                    source.kernel_source_path.clone_from(&part.path);
                }
                "rootfs" => {
                    source.rootfs_url.clone_from(&part.url);
                    source.rootfs_source_path.clone_from(&part.path);
                }
                _ => {}
            }
        }
        let origin = Origin {
            preset: BaseImagePreset::Hosted,
            ci_version: manifest.firecracker_version.clone(),
            source,
            store: StoreOrigin::Hosted,
        };
        self.assemble(manifest, parts, origin, force, tell).await
    }
}

fn part(role: &str, artifact: &ArtifactManifest, base: &Base) -> Result<Part> {
    let refused = |what: &str| Error::new(ErrorKind::Invalid, format!("{role}: {what}"));
    let local = artifact
        .local_path()
        .ok_or_else(|| refused("has no file name"))?;
    let name = match &artifact.file_name {
        Some(name) => name.clone(),
        None => local
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned(),
    };
    let mut part = match (&artifact.url, &artifact.path, base) {
        (Some(url), ..) => Part::at(url.clone(), &name),
        (None, Some(path), Base::Dir(dir)) => {
            let path = dir
                .join(path)
                .canonicalize()
                .map_err(|e| Error::io(&format!("opening the {role}"), dir.join(path), e))?;
            if !path.starts_with(dir) {
                let what = format!("is a link out of the manifest's directory, to {path:?}");
                return Err(refused(&what));
            }
            Part::on_disk(path, &name)
        }
        (None, Some(path), Base::Url(base)) => {
            if artifact.sha256.is_none() {
                return Err(refused("sha256 is missing, needed for what is downloaded"));
            }
            let url = base
                .join(&path.to_string_lossy())
                .map_err(|e| refused("its path makes no URL").because(e))?;
            Part::at(url.into(), &name)
        }
        (None, None, _) => return Err(refused("has neither url nor path")),
    };
    part.sha256.clone_from(&artifact.sha256);
    part.size_bytes = artifact.size_bytes;
    Ok(part)
}
