//! What is on disk for VMs: bundles (kernel, initramfs, root file system, manifest), the
//! tools that make them without root rights, and the staging of drives.
//!
//! Everything here is synchronous: it works on files, and belongs on a thread of its own in
//! an asynchronous program. What takes long reports [`Progress`] and can be cancelled.

pub mod build;
pub mod bundle;
pub mod checksum;
pub mod copy;
mod decompress;
#[cfg(feature = "download")]
pub mod download;
pub mod drive;
#[cfg(feature = "download")]
pub mod image;
pub mod initramfs;
pub mod kernel;
pub(crate) mod lock;
pub mod manifest;
pub mod modules;
#[cfg(feature = "oci")]
pub mod oci;
mod process;
pub(crate) mod program;
mod progress;
pub mod rootfs;
pub mod space;
pub mod store;
mod verified;

pub use build::{BuildOptions, build};
pub use bundle::{Artifact, Bundle};
pub use copy::{CopyMethod, CopyOutcome, copy_sparse};
pub use kernel::{KernelFormat, KernelInfo, extract_vmlinux, inspect_elf};
pub use manifest::{ArtifactManifest, BundleManifest, ImageProcess};
pub use progress::{Progress, Watch};
pub use space::{allocated_bytes, free_bytes, require_free};

/// A directory for work that nobody else may look into; gone when it is dropped.
fn private_dir(prefix: &str, parent: &std::path::Path) -> crate::Result<tempfile::TempDir> {
    use std::os::unix::fs::PermissionsExt;
    tempfile::Builder::new()
        .prefix(prefix)
        .permissions(std::fs::Permissions::from_mode(0o700))
        .tempdir_in(parent)
        .map_err(|cause| crate::Error::io("creating a directory in", parent, cause))
}
