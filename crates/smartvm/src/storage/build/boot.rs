//! What a bundle's guest boots with: kernel and initramfs, made or taken over.

use std::path::{Path, PathBuf};

use super::{BuildOptions, INITRAMFS, KERNEL, modules, store};
use crate::spec::Arch;
use crate::storage::bundle::{Artifact, Bundle};
use crate::storage::checksum::sha256_of_file;
use crate::storage::copy::copy_sparse;
use crate::storage::initramfs;
use crate::storage::kernel::{extract_vmlinux, inspect_elf};
use crate::storage::manifest::{ArtifactManifest, BundleManifest};
use crate::storage::modules::ModuleFile;
use crate::storage::progress::{Progress, Watch};
use crate::{Error, ErrorKind, Result};

/// Where a bundle's kernel comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum KernelSource {
    /// An ELF `vmlinux`, or a bzImage (`vmlinuz`) of any usual compression.
    Image(PathBuf),
    /// The directory of another bundle: its kernel, and its initramfs with agent and modules.
    Bundle(PathBuf),
}

impl From<PathBuf> for KernelSource {
    fn from(path: PathBuf) -> Self {
        Self::Image(path)
    }
}

impl From<&Path> for KernelSource {
    fn from(path: &Path) -> Self {
        Self::Image(path.to_owned())
    }
}

impl From<&PathBuf> for KernelSource {
    fn from(path: &PathBuf) -> Self {
        Self::Image(path.clone())
    }
}

/// What a guest boots with before it has a root.
pub(super) struct Boot {
    pub(super) arch: Arch,
    pub(super) kernel: ArtifactManifest,
    pub(super) initrd: ArtifactManifest,
    /// The kernel's words, unless others are asked for.
    pub(super) args: String,
}

/// The kernel out of what a distribution installs, and an initramfs for it.
pub(super) fn from_image(
    image: &Path,
    options: &BuildOptions,
    work: &Path,
    watch: &mut Watch<'_>,
) -> Result<Boot> {
    watch.tell(Progress::Stage("taking out the kernel"));
    let kernel = extract_vmlinux(image)?;
    let release = modules::release_of(&kernel);
    let kernel_manifest = store(work, KERNEL, &kernel)?;
    drop(kernel);
    let arch = inspect_elf(&work.join(KERNEL))?.arch;
    let modules = modules::choose(image, options, release.as_deref(), watch)?;
    Ok(Boot {
        arch,
        kernel: kernel_manifest,
        initrd: make_initramfs(options, arch, &modules, work, watch)?,
        args: BundleManifest::default_boot_args(arch).to_owned(),
    })
}

/// Kernel and initramfs of another bundle.
pub(super) fn from_bundle(
    dir: &Path,
    options: &BuildOptions,
    work: &Path,
    watch: &mut Watch<'_>,
) -> Result<Boot> {
    let bundle = Bundle::load(dir)?;
    watch.tell(Progress::Stage("taking over the kernel"));
    let mut take = |artifact: &Artifact, name: &str| -> Result<ArtifactManifest> {
        let target = work.join(name);
        copy_sparse(&artifact.path, &target, watch.cancelled())?;
        let sha256 = sha256_of_file(&target, watch)?;
        if artifact
            .sha256
            .as_ref()
            .is_some_and(|expected| *expected != sha256)
        {
            let what = format!(
                "the {} of the bundle {} is altered",
                artifact.role,
                dir.display()
            );
            return Err(Error::new(ErrorKind::Corrupt, what)
                .at(&artifact.path)
                .hint("fetch or build that bundle again"));
        }
        Ok(ArtifactManifest::builder()
            .path(name)
            .sha256(sha256)
            .size_bytes(artifact.size_bytes)
            .build())
    };
    let kernel = take(bundle.kernel(), KERNEL)?;
    let initrd = match bundle.initrd() {
        Some(initrd) => take(initrd, INITRAMFS)?,
        None => make_initramfs(options, bundle.arch(), &[], work, watch)?,
    };
    Ok(Boot {
        arch: bundle.arch(),
        kernel,
        initrd,
        args: bundle.boot_args().to_owned(),
    })
}

/// The initramfs of the agent and these modules.
fn make_initramfs(
    options: &BuildOptions,
    arch: Arch,
    modules: &[ModuleFile],
    work: &Path,
    watch: &mut Watch<'_>,
) -> Result<ArtifactManifest> {
    watch.tell(Progress::Stage("making the initramfs"));
    let agent = inspect_elf(&options.agent).map_err(|cause| {
        Error::new(cause.kind(), "the guest agent can't be used")
            .at(&options.agent)
            .because(cause)
    })?;
    if agent.arch != arch {
        return Err(Error::new(
            ErrorKind::Invalid,
            format!(
                "the kernel is for {arch}, the guest agent {} for {}",
                options.agent.display(),
                agent.arch
            ),
        )
        .at(&options.agent));
    }
    watch.go_on("building a bundle")?;
    store(work, INITRAMFS, &initramfs::build(&options.agent, modules)?)
}
