//! A bundle on disk: a directory with a manifest and the files it names.

use std::fs;
use std::path::{Path, PathBuf};

use super::checksum::sha256_of_file;
use super::manifest::{ArtifactManifest, BundleManifest, SCHEMA_VERSION};
use super::progress::{Progress, Watch};
use crate::spec::{self, Arch, Format, RootfsType};
use crate::{Error, ErrorKind, Result};

/// Name of the manifest in a bundle's directory.
pub const MANIFEST: &str = "manifest.json";

/// A file of a bundle, found on disk with the size that the manifest says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Artifact {
    /// Which one: `kernel`, `initrd` or `rootfs`.
    pub role: &'static str,
    /// Where it is; absolute, without links.
    pub path: PathBuf,
    /// Size in bytes.
    pub size_bytes: u64,
    /// SHA-256 that the manifest says, in lower case.
    pub sha256: Option<String>,
}

/// A bundle whose manifest is right and whose files are there, of the right size.
///
/// ```no_run
/// use std::path::Path;
///
/// use smartvm::storage::{Bundle, Watch};
///
/// # fn example() -> smartvm::Result<()> {
/// let bundle = Bundle::load(Path::new("./image"))?;
/// println!("{} for {}: {}", bundle.bundle_id(), bundle.arch(), bundle.boot_args());
/// let mut tell = |progress| println!("{progress:?}");
/// let unverifiable = bundle.verify(&mut Watch::new(&mut tell, &|| false))?;
/// assert!(unverifiable.is_empty(), "no checksum for {unverifiable:?}");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Bundle {
    dir: PathBuf,
    manifest: BundleManifest,
    kernel: Artifact,
    initrd: Option<Artifact>,
    rootfs: Artifact,
}

impl Bundle {
    /// Reads the bundle in `dir`. Sizes are compared, checksums aren't: [`Bundle::verify`]
    /// does that.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] where there is no bundle or a file of it is missing,
    /// [`ErrorKind::Invalid`] for a manifest that is wrong (all problems at once),
    /// [`ErrorKind::Corrupt`] for a file of another size and for a newer format.
    pub fn load(dir: &Path) -> Result<Self> {
        let dir = dir.canonicalize().map_err(|cause| {
            Error::io("opening the bundle", dir, cause)
                .hint("`smartvm image build` makes a bundle, `smartvm image ls` lists them")
        })?;
        let manifest = read_manifest(&dir)?;
        let found = |role, artifact| find(&dir, role, artifact);
        Ok(Self {
            kernel: found("kernel", &manifest.kernel)?,
            initrd: manifest
                .initrd
                .as_ref()
                .map(|initrd| found("initrd", initrd))
                .transpose()?,
            rootfs: found("rootfs", &manifest.rootfs)?,
            dir,
            manifest,
        })
    }

    /// Compares size and SHA-256 of every file with the manifest. Returns the roles of those
    /// that the manifest has no checksum of.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`], naming each file that is altered with what was expected and
    /// what was found.
    pub fn verify(&self, watch: &mut Watch<'_>) -> Result<Vec<&'static str>> {
        watch.tell(Progress::Stage("verifying the bundle"));
        let mut unchecked = Vec::new();
        let mut altered = Vec::new();
        for artifact in self.artifacts() {
            let Some(expected) = &artifact.sha256 else {
                unchecked.push(artifact.role);
                continue;
            };
            let found = sha256_of_file(&artifact.path, watch)?;
            if found != *expected {
                altered.push(format!(
                    "{} {} has the SHA-256 {found}, {expected} was expected",
                    artifact.role,
                    artifact.path.display(),
                ));
            }
        }
        if altered.is_empty() {
            return Ok(unchecked);
        }
        Err(Error::new(
            ErrorKind::Corrupt,
            format!(
                "the bundle {} is altered: {}",
                self.bundle_id(),
                altered.join("; ")
            ),
        )
        .at(&self.dir)
        .hint("fetch or build the bundle again"))
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its manifest.
    pub fn manifest(&self) -> &BundleManifest {
        &self.manifest
    }

    /// Its name.
    pub fn bundle_id(&self) -> &str {
        &self.manifest.bundle_id
    }

    /// The architecture of the guest.
    pub fn arch(&self) -> Arch {
        self.manifest.arch
    }

    /// The kernel.
    pub fn kernel(&self) -> &Artifact {
        &self.kernel
    }

    /// The initramfs, where it has one.
    pub fn initrd(&self) -> Option<&Artifact> {
        self.initrd.as_ref()
    }

    /// The root file system.
    pub fn rootfs(&self) -> &Artifact {
        &self.rootfs
    }

    /// Type of the root file system.
    pub fn rootfs_type(&self) -> RootfsType {
        self.manifest.rootfs_type
    }

    /// Whether the root file system must not be written.
    pub fn is_read_only(&self) -> bool {
        self.manifest
            .rootfs_is_read_only
            .unwrap_or(self.manifest.rootfs_type == RootfsType::Squashfs)
    }

    /// Boot arguments of the kernel: the manifest's, else the default ones.
    pub fn boot_args(&self) -> &str {
        match &self.manifest.boot_args {
            Some(args) => args,
            None => BundleManifest::default_boot_args(self.arch()),
        }
    }

    /// Kernel, initramfs and root file system.
    pub fn artifacts(&self) -> impl Iterator<Item = &Artifact> {
        [Some(&self.kernel), self.initrd.as_ref(), Some(&self.rootfs)]
            .into_iter()
            .flatten()
    }
}

/// Reads and validates the manifest in a directory.
pub(super) fn read_manifest(dir: &Path) -> Result<BundleManifest> {
    let path = dir.join(MANIFEST);
    let (text, _) = spec::load::read(&path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => Error::new(
            ErrorKind::NotFound,
            format!("{} isn't a bundle: it has no {MANIFEST}", dir.display()),
        )
        .at(dir)
        .hint("`smartvm image build` makes a bundle"),
        _ => error,
    })?;
    parse_manifest(&text, &path)
}

/// A manifest's text, from `path`.
pub(super) fn parse_manifest(text: &str, path: &Path) -> Result<BundleManifest> {
    // Before all else: a newer format may have any shape.
    let version = serde_json::from_str::<serde_json::Value>(text)
        .ok()
        .and_then(|value| value.get("schemaVersion")?.as_u64());
    if let Some(version) = version.filter(|&version| version > SCHEMA_VERSION.into()) {
        return Err(Error::new(
            ErrorKind::Corrupt,
            format!(
                "{} has the format version {version}; this smartvm knows {SCHEMA_VERSION}",
                path.display()
            ),
        )
        .at(path)
        .hint("use a newer smartvm"));
    }
    let about = |problems| spec::load::about(problems, path);
    let manifest: BundleManifest = spec::load(text, Format::Json).map_err(about)?;
    manifest.validate().map_err(about)?;
    Ok(manifest)
}

/// Finds a file of a bundle and compares its size.
fn find(dir: &Path, role: &'static str, artifact: &ArtifactManifest) -> Result<Artifact> {
    let relative = artifact.local_path().ok_or_else(|| {
        Error::new(
            ErrorKind::Invalid,
            format!("the {role} of {} has no name", dir.display()),
        )
    })?;
    let named = dir.join(&relative);
    let of = format!("the {role} of the bundle {}", dir.display());
    let path = named.canonicalize().map_err(|cause| {
        let error = Error::io(&format!("opening {of},"), &named, cause);
        match artifact.url {
            Some(_) => error.hint("it is yet to be downloaded: `smartvm image pull`"),
            None => error.hint("the bundle isn't whole: fetch or build it again"),
        }
    })?;
    if !path.starts_with(dir) {
        return Err(Error::new(
            ErrorKind::Invalid,
            format!("{of} is a link that leads out of it, to {}", path.display()),
        )
        .at(named));
    }
    let metadata = fs::metadata(&path).map_err(|cause| Error::io("looking at", &path, cause))?;
    if !metadata.is_file() {
        return Err(Error::new(
            ErrorKind::Invalid,
            format!("{of}, {}, isn't a regular file", path.display()),
        )
        .at(path));
    }
    let size_bytes = metadata.len();
    if let Some(expected) = artifact
        .size_bytes
        .filter(|&expected| expected != size_bytes)
    {
        let how = if size_bytes < expected {
            "truncated"
        } else {
            "altered"
        };
        return Err(Error::new(
            ErrorKind::Corrupt,
            format!(
                "{of}, {}, is {how}: it is {size_bytes} bytes long, {expected} were expected",
                path.display()
            ),
        )
        .at(path)
        .hint("fetch or build the bundle again"));
    }
    Ok(Artifact {
        role,
        path,
        size_bytes,
        sha256: artifact.sha256.as_ref().map(|sum| sum.to_ascii_lowercase()),
    })
}

#[cfg(test)]
#[path = "bundle/tests.rs"]
mod tests;
