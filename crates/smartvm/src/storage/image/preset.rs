//! Firecracker's CI images: the newest kernel and root file system of a CI version.

use std::cmp::Reverse;

use super::assemble::{Origin, Part};
use super::listing::{self, Listing};
use super::{BaseImages, Event, Tell};
use crate::spec::{Arch, BaseImagePreset, BaseImageSource, BaseImageSourceKind, RootfsType};
use crate::storage::BundleManifest;
use crate::storage::store::{Held, Origin as StoreOrigin};
use crate::vm::blocking;
use crate::{Error, ErrorKind, Result};

/// The bucket of Firecracker's CI.
pub const BUCKET: &str = "https://s3.amazonaws.com/spec.ccfc.min";
const ROOT: &str = "firecracker-ci/";
const LTS: &str = "v1.7";
/// So many CI versions are looked into for one that has images for the architecture.
const MOST_VERSIONS: usize = 12;

impl BaseImages {
    pub(super) async fn preset(
        &self,
        preset: BaseImagePreset,
        arch: Arch,
        force: bool,
        tell: &Tell,
    ) -> Result<Held> {
        if preset == BaseImagePreset::Lts && !force {
            match self.store.hold(&bundle_id(LTS, arch)) {
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                there => return there,
            }
        }
        let chosen = match self.choose(preset, arch).await {
            Ok(chosen) => chosen,
            Err(e) if force => return Err(e),
            Err(e) => return self.newest_there(preset, arch, e, tell).await,
        };
        let id = bundle_id(&chosen.version, arch);
        let firecracker = match chosen.version.strip_prefix('v') {
            Some(numbers) => format!("v{numbers}.0"),
            None => "latest".to_owned(),
        };
        let part = |key: &str| {
            let url = format!("{}/{key}", self.bucket);
            Part::at(url, key.rsplit('/').next().unwrap_or(key))
        };
        let source = BaseImageSource::builder()
            .kind(BaseImageSourceKind::FirecrackerCi)
            .bucket_url(&self.bucket)
            .kernel_key(&chosen.kernel)
            .rootfs_key(&chosen.rootfs)
            .build();
        let origin = Origin {
            preset,
            ci_version: chosen.version.clone(),
            source,
            store: StoreOrigin::Preset,
        };
        let manifest = BundleManifest::builder()
            .bundle_id(id)
            .arch(arch)
            .firecracker_version(firecracker)
            .rootfs_type(chosen.rootfs_type)
            .boot_args(BundleManifest::default_boot_args(arch))
            .kernel(Default::default())
            .rootfs(Default::default())
            .build();
        let parts = [
            ("kernel", part(&chosen.kernel)),
            ("rootfs", part(&chosen.rootfs)),
        ];
        self.assemble(manifest, parts.into(), origin, force, tell)
            .await
    }

    async fn choose(&self, preset: BaseImagePreset, arch: Arch) -> Result<Chosen> {
        let versions = match preset {
            BaseImagePreset::Lts => vec![LTS.to_owned()],
            _ => {
                let listing = listing::list(&self.downloader, &self.bucket, ROOT, true).await?;
                versions(&listing)
            }
        };
        for version in versions.iter().take(MOST_VERSIONS) {
            let prefix = format!("{ROOT}{version}/{arch}/");
            let listing = listing::list(&self.downloader, &self.bucket, &prefix, false).await?;
            if let Some(chosen) = newest(version, &prefix, &listing.keys) {
                return Ok(chosen);
            }
        }
        Err(Error::new(
            ErrorKind::NotFound,
            format!(
                "{} lists no kernel and root file system for {arch}",
                self.bucket
            ),
        ))
    }

    /// Without a network: what was used last of the preset's images.
    async fn newest_there(
        &self,
        preset: BaseImagePreset,
        arch: Arch,
        why: Error,
        tell: &Tell,
    ) -> Result<Held> {
        let store = self.store.clone();
        let found = blocking(move || {
            let entries = store.list()?.into_iter().filter_map(|(_, e)| e.ok());
            let fits = |entry: &crate::storage::store::Entry| {
                let of = entry.record.base_image.as_ref();
                of.is_some_and(|image| image.preset == preset && image.arch == arch)
            };
            let newest = entries.filter(fits).max_by_key(|entry| entry.last_used);
            newest.map(|entry| store.hold(&entry.name)).transpose()
        })
        .await?;
        match found {
            Some(held) => {
                tell(Event::Warning(format!(
                    "{} is used, which is there already: {why}",
                    held.bundle().bundle_id()
                )));
                Ok(held)
            }
            None => Err(
                Error::new(why.kind(), "finding a base image, none being there")
                    .because(why)
                    .hint("without a network, `smartvm image build` makes one"),
            ),
        }
    }
}

fn bundle_id(version: &str, arch: Arch) -> String {
    format!("firecracker-ci-{version}-{arch}")
}

/// What a CI version offers.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Chosen {
    pub(super) version: String,
    pub(super) kernel: String,
    pub(super) rootfs: String,
    pub(super) rootfs_type: RootfsType,
}

/// The CI versions, the newest first: those named by a date are newer than `vX.Y`.
pub(super) fn versions(listing: &Listing) -> Vec<String> {
    let mut versions: Vec<(u8, Vec<u64>, String)> = listing
        .prefixes
        .iter()
        .filter_map(|prefix| prefix.strip_prefix(ROOT)?.strip_suffix('/'))
        .filter_map(|name| {
            if let Some(version) = name.strip_prefix('v') {
                return Some((0, numbers(version)?, name.to_owned()));
            }
            let date = name.split('-').next()?;
            let is_date = date.len() == 8 && date.bytes().all(|b| b.is_ascii_digit());
            let safe = super::store::is_name(name);
            (is_date && safe).then_some((1, vec![date.parse().ok()?], name.to_owned()))
        })
        .collect();
    versions.sort_by(|a, b| Reverse(a).cmp(&Reverse(b)));
    versions.into_iter().map(|(.., name)| name).collect()
}

/// The newest kernel and the newest root file system, squashfs before ext4.
pub(super) fn newest(version: &str, prefix: &str, keys: &[String]) -> Option<Chosen> {
    let names = || keys.iter().filter_map(|key| key.strip_prefix(prefix));
    let kernel = names()
        .filter_map(|name| Some((numbers(name.strip_prefix("vmlinux-")?)?, name)))
        .max()?
        .1;
    let with = |end: &str, kind: RootfsType| {
        let version = |name: &str| numbers(name.strip_prefix("ubuntu-")?.strip_suffix(end)?);
        let newest = names()
            .filter_map(|name| Some((version(name)?, name)))
            .max();
        newest.map(|(_, name)| (name, kind))
    };
    let (rootfs, rootfs_type) =
        with(".squashfs", RootfsType::Squashfs).or_else(|| with(".ext4", RootfsType::Ext4))?;
    Some(Chosen {
        version: version.to_owned(),
        kernel: format!("{prefix}{kernel}"),
        rootfs: format!("{prefix}{rootfs}"),
        rootfs_type,
    })
}

/// `5.10.223` as numbers; `None` for anything else, such as a kernel's `.config`.
fn numbers(text: &str) -> Option<Vec<u64>> {
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    text.split('.')
        .map(|part| digits(part).then(|| part.parse().ok())?)
        .collect()
}
