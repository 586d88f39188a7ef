//! From files here and there to an image in the store.

use std::path::PathBuf;
use std::sync::Arc;

use super::{BaseImages, Event, Tell};
use crate::spec::{
    BaseImageBundle, BaseImageChecksums, BaseImagePreset, BaseImageSizes, BaseImageSource,
};
use crate::storage::checksum::{sha256_of, sha256_of_file};
use crate::storage::download::{self, Download};
use crate::storage::store::{Held, Origin as StoreOrigin, Record, Work};
use crate::storage::{ArtifactManifest, Bundle, BundleManifest, Watch, copy_sparse, inspect_elf};
use crate::vm::blocking;
use crate::{Error, ErrorKind, Result};

/// Largest file of an image, in bytes.
const MOST_BYTES: u64 = 64 << 30;

/// A file of an image to be.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) url: Option<String>,
    pub(super) path: Option<PathBuf>,
    name: String,
    pub(super) sha256: Option<String>,
    pub(super) size_bytes: Option<u64>,
}

impl Part {
    pub(super) fn at(url: String, name: &str) -> Self {
        Self {
            url: Some(url),
            path: None,
            name: name.to_owned(),
            sha256: None,
            size_bytes: None,
        }
    }

    pub(super) fn on_disk(path: PathBuf, name: &str) -> Self {
        Self {
            url: None,
            path: Some(path),
            ..Self::at(String::new(), name)
        }
    }
}

/// Where an image comes from.
pub(super) struct Origin {
    pub(super) preset: BaseImagePreset,
    pub(super) ci_version: String,
    pub(super) source: BaseImageSource,
    pub(super) store: StoreOrigin,
}

impl BaseImages {
    /// Makes the image that `manifest` describes, out of `parts`, unless it is there.
    pub(super) async fn assemble(
        &self,
        mut manifest: BundleManifest,
        parts: Vec<(&'static str, Part)>,
        origin: Origin,
        force: bool,
        tell: &Tell,
    ) -> Result<Held> {
        check_names(&parts)?;
        let (store, id) = (self.store.clone(), manifest.bundle_id.clone());
        let claim = blocking(move || store.claim(&id, &|| false)).await?;
        if !force && let Some(there) = self.there(&manifest.bundle_id, &parts, &origin).await? {
            return Ok(there);
        }
        // Before gigabytes are fetched in vain.
        if let Some(user) = self.store.user_of(&manifest.bundle_id)? {
            let what = format!("the image {} is in use by {user}", manifest.bundle_id);
            return Err(Error::new(ErrorKind::WrongState, what).hint("end what uses it first"));
        }
        let store = self.store.clone();
        let mut work = blocking(move || store.work()).await?;
        for (role, part) in parts {
            let (made, artifact) = self.bring(work, part, force, tell).await?;
            work = made;
            match role {
                "kernel" => manifest.kernel = artifact,
                "rootfs" => manifest.rootfs = artifact,
                _ => manifest.initrd = Some(artifact),
            }
        }
        let store = self.store.clone();
        blocking(move || {
            manifest.write(work.path())?;
            let bundle = Bundle::load(work.path())?;
            let kernel = inspect_elf(&bundle.kernel().path)?;
            if kernel.arch != manifest.arch {
                let what = format!("the kernel of {}", manifest.bundle_id);
                return Err(super::other_arch(&what, kernel.arch, manifest.arch));
            }
            let mut record = Record::new(origin.store);
            let dir = store.dir().join(claim.name());
            record.base_image = Some(describe(&bundle, dir, &record.created_at, origin));
            store.put(&claim, work, &record, true)
        })
        .await
    }

    /// The image in the store, if it is the one that is meant.
    async fn there(
        &self,
        id: &str,
        parts: &[(&'static str, Part)],
        origin: &Origin,
    ) -> Result<Option<Held>> {
        let (store, id) = (self.store.clone(), id.to_owned());
        let held = blocking(move || match store.hold(&id) {
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::Corrupt) => Ok(None),
            held => held.map(Some),
        })
        .await?;
        let Some(held) = held else { return Ok(None) };
        let known = held.record().base_image.as_ref();
        let keys =
            |source: &BaseImageSource| (source.kernel_key.clone(), source.rootfs_key.clone());
        let same_keys = known.is_some_and(|image| keys(&image.source) == keys(&origin.source));
        let same = same_keys
            && parts.iter().all(|(role, part)| {
                let artifact = held.bundle().artifacts().find(|it| it.role == *role);
                artifact.is_some_and(|it| match (&part.sha256, &it.sha256) {
                    (Some(wanted), Some(found)) => wanted.eq_ignore_ascii_case(found),
                    _ => part.size_bytes.is_none_or(|size| size == it.size_bytes),
                })
            });
        Ok(same.then_some(held))
    }

    /// Brings one file into the image in the making.
    async fn bring(
        &self,
        work: Work,
        part: Part,
        force: bool,
        tell: &Tell,
    ) -> Result<(Work, ArtifactManifest)> {
        let target = work.path().join(&part.name);
        let (sha256, size_bytes) = match &part.url {
            Some(url) => {
                let downloads = self.store.downloads()?;
                // One name for one URL: what another image of the same name needs is another.
                let name = format!("{}-{}", &sha256_of(url.as_bytes())[..16], part.name);
                let fetched = downloads.join(name);
                if force {
                    remove(&fetched)?;
                }
                let mut download = Download::builder()
                    .url(url)
                    .target(&fetched)
                    .most_bytes(MOST_BYTES)
                    .build();
                download.sha256.clone_from(&part.sha256);
                download.size_bytes = part.size_bytes;
                let tell = Arc::clone(tell);
                let pass: download::Tell = Arc::new(move |event| tell(Event::Download(event)));
                let done = self.downloader.file(&download, &pass).await?;
                std::fs::rename(&fetched, &target).map_err(|e| Error::io("moving", &fetched, e))?;
                (done.sha256, done.size_bytes)
            }
            None => {
                let (part, target) = (part.clone(), target.clone());
                blocking(move || copy(&part, &target)).await?
            }
        };
        let artifact = ArtifactManifest::builder()
            .path(&part.name)
            .sha256(sha256)
            .size_bytes(size_bytes)
            .build();
        Ok((work, artifact))
    }
}

/// Copies a file of this host, and compares it with what is known of it.
fn copy(part: &Part, target: &std::path::Path) -> Result<(String, u64)> {
    let source = part.path.clone().unwrap_or_default();
    copy_sparse(&source, target, &|| false)?;
    let sha256 = sha256_of_file(target, &mut Watch::new(&mut |_| {}, &|| false))?;
    let size = target
        .metadata()
        .map_err(|e| Error::io("looking at", target, e))?
        .len();
    let what = source.display();
    let wrong = match (&part.sha256, part.size_bytes) {
        (_, Some(expected)) if expected != size => {
            format!("{what} is {size} bytes long, {expected} were expected")
        }
        (Some(expected), _) if !expected.eq_ignore_ascii_case(&sha256) => {
            format!("{what} has the SHA-256 {sha256}, {expected} was expected")
        }
        _ => return Ok((sha256, size)),
    };
    Err(Error::new(ErrorKind::Corrupt, wrong).at(source))
}

/// The names of files must not be one another's, nor the store's own.
fn check_names(parts: &[(&'static str, Part)]) -> Result<()> {
    let mut names = std::collections::BTreeSet::new();
    for (role, part) in parts {
        let name = part.name.as_str();
        let own = name.starts_with('.') || ["manifest.json", "image.json"].contains(&name);
        if own || !names.insert(name) {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("{role}: the file name {name:?} is taken"),
            )
            .hint("give it another fileName"));
        }
    }
    Ok(())
}

fn describe(bundle: &Bundle, dir: PathBuf, now: &str, origin: Origin) -> BaseImageBundle {
    let inside = |path: &std::path::Path| dir.join(path.file_name().unwrap_or_default());
    let (kernel, rootfs) = (bundle.kernel(), bundle.rootfs());
    let mut checksums = BaseImageChecksums::default();
    checksums.kernel_sha256.clone_from(&kernel.sha256);
    checksums.rootfs_sha256.clone_from(&rootfs.sha256);
    let sizes = BaseImageSizes::builder()
        .kernel_bytes(kernel.size_bytes)
        .rootfs_bytes(rootfs.size_bytes)
        .build();
    BaseImageBundle::builder()
        .preset(origin.preset)
        .arch(bundle.arch())
        .ci_version(origin.ci_version)
        .firecracker_version(&bundle.manifest().firecracker_version)
        .bundle_id(bundle.bundle_id())
        .kernel_image_path(inside(&kernel.path))
        .rootfs_path(inside(&rootfs.path))
        .bundle_dir(dir)
        .rootfs_type(bundle.rootfs_type())
        .rootfs_is_read_only(bundle.is_read_only())
        .boot_args(bundle.boot_args())
        .source(origin.source)
        .checksums(checksums)
        .sizes(sizes)
        .created_at(now)
        .last_accessed_at(now)
        .build()
}

fn remove(path: &std::path::Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io("removing", path, e)),
        _ => Ok(()),
    }
}
