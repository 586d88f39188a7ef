//! Making a bundle: the kernel out of what a distribution installs, an initramfs with the
//! agent and the modules it needs, and a root file system. By any user; the same input makes
//! the same bytes.

mod boot;
mod modules;
mod place;

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use typed_builder::TypedBuilder;

use super::bundle::Bundle;
use super::checksum::{sha256_of, sha256_of_file};
use super::manifest::{ArtifactManifest, BundleManifest, ImageProcess, is_bundle_id};
use super::progress::{Progress, Watch};
use super::rootfs::{RootSource, RootfsOptions, build_rootfs};
use crate::spec::RootfsType;
use crate::{Error, ErrorKind, Result};

pub use boot::KernelSource;
pub use modules::GUEST_MODULES;
pub(super) use modules::guest_modules;

const KERNEL: &str = "vmlinux";
const INITRAMFS: &str = "initramfs.cpio";
const ROOTFS: [&str; 2] = ["rootfs.ext4", "rootfs.squashfs"];

/// What a bundle is made of.
#[derive(Debug, Clone, PartialEq, Eq, TypedBuilder)]
#[non_exhaustive]
pub struct BuildOptions {
    /// The kernel.
    #[builder(setter(into))]
    pub kernel: KernelSource,
    /// The kernel's module directory, such as `/lib/modules/6.1.0-1-amd64`, with its
    /// `modules.dep`. Not needed for a kernel that has its drivers built in, nor for one that
    /// comes out of a bundle.
    #[builder(default, setter(into, strip_option))]
    pub modules: Option<PathBuf>,
    /// Modules for the initramfs besides [`GUEST_MODULES`]; unlike those they must exist.
    #[builder(default, setter(into))]
    pub extra_modules: Vec<String>,
    /// The root file system.
    #[builder(setter(into))]
    pub rootfs: RootSource,
    /// The guest agent's program, a static executable.
    #[builder(setter(into))]
    pub agent: PathBuf,
    /// Directory to make. It must not exist, or be empty, unless `replace` is set.
    #[builder(setter(into))]
    pub output: PathBuf,
    /// Whether a bundle that is at `output` already is replaced.
    #[builder(default)]
    pub replace: bool,
    /// Name of the bundle. Default: the last part of `output`.
    #[builder(default, setter(into, strip_option))]
    pub bundle_id: Option<String>,
    /// What it is, for people.
    #[builder(default, setter(into, strip_option))]
    pub name: Option<String>,
    /// Version of Firecracker that it is meant for.
    #[builder(default = "1.12.1".to_owned(), setter(into))]
    pub firecracker_version: String,
    /// Boot arguments. Default: those of the bundle that the kernel comes from, else
    /// [`BundleManifest::default_boot_args`].
    #[builder(default, setter(into, strip_option))]
    pub boot_args: Option<String>,
    /// What is run in it where nothing else is asked for.
    #[builder(default, setter(strip_option))]
    pub process: Option<ImageProcess>,
    /// Whether guests must not write the root file system.
    #[builder(default)]
    pub read_only: bool,
    /// Size of the root file system, and the room left in it.
    #[builder(default)]
    pub size: RootfsOptions,
}

/// Makes a bundle. It is put together in a private directory beside `output` and moved into
/// place when it is whole: a failure leaves nothing, and what was there before.
pub fn build(options: &BuildOptions, watch: &mut Watch<'_>) -> Result<Bundle> {
    let output = place::Output::new(&options.output, options.replace)?;
    let bundle_id = bundle_id(options, output.path())?;
    let work = output.work_dir()?;

    let boot = match &options.kernel {
        KernelSource::Image(image) => boot::from_image(image, options, work.path(), watch)?,
        KernelSource::Bundle(dir) => boot::from_bundle(dir, options, work.path(), watch)?,
    };

    let format = options.size.format;
    let name = match format {
        RootfsType::Ext4 => ROOTFS[0],
        RootfsType::Squashfs => ROOTFS[1],
    };
    let image = work.path().join(name);
    let info = build_rootfs(&options.rootfs, &image, &options.size, watch)?;
    watch.tell(Progress::Stage("computing checksums"));
    let rootfs = ArtifactManifest::builder()
        .path(name)
        .sha256(sha256_of_file(&image, watch)?)
        .size_bytes(info.size_bytes)
        .build();

    let mut manifest = BundleManifest::builder()
        .bundle_id(bundle_id)
        .arch(boot.arch)
        .firecracker_version(options.firecracker_version.clone())
        .rootfs_type(format)
        .rootfs_is_read_only(options.read_only || format == RootfsType::Squashfs)
        .boot_args(match &options.boot_args {
            Some(args) => args.clone(),
            None => boot.args,
        })
        .kernel(boot.kernel)
        .initrd(boot.initrd)
        .rootfs(rootfs)
        .build();
    manifest.name = options.name.clone();
    manifest.process = options.process.clone();
    manifest.write(work.path())?;
    // Whole, as its reader sees it, before anybody else does.
    Bundle::load(work.path())?;
    output.put(work)?;
    Bundle::load(&options.output)
}

fn bundle_id(options: &BuildOptions, output: &Path) -> Result<String> {
    let (id, hint) = match &options.bundle_id {
        Some(id) => (id.clone(), "choose another name"),
        None => (
            output
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            "give the bundle a name, or choose another output directory",
        ),
    };
    if is_bundle_id(&id) {
        return Ok(id);
    }
    Err(Error::new(
        ErrorKind::Invalid,
        format!(
            "a bundle can't be named {id:?}: up to 128 letters, digits, `.`, `_`, `-` are allowed"
        ),
    )
    .hint(hint))
}

fn store(dir: &Path, name: &str, bytes: &[u8]) -> Result<ArtifactManifest> {
    write(&dir.join(name), bytes)?;
    Ok(ArtifactManifest::builder()
        .path(name)
        .sha256(sha256_of(bytes))
        .size_bytes(bytes.len() as u64)
        .build())
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    File::create_new(path)
        .and_then(|mut file| file.write_all(bytes))
        .map_err(|cause| Error::io("writing", path, cause))
}

#[cfg(test)]
mod tests;
