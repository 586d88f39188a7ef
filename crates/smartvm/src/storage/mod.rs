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
pub mod initramfs;
pub mod kernel;
pub mod manifest;
pub mod modules;
mod program;
mod progress;
pub mod rootfs;
pub mod space;
mod verified;

pub use build::{BuildOptions, build};
pub use bundle::{Artifact, Bundle};
pub use copy::{CopyMethod, CopyOutcome, copy_sparse};
pub use kernel::{KernelFormat, KernelInfo, extract_vmlinux, inspect_elf};
pub use manifest::{ArtifactManifest, BundleManifest};
pub use progress::{Progress, Watch};
pub use space::{allocated_bytes, free_bytes, require_free};
