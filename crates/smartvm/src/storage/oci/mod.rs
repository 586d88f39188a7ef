//! OCI and Docker images: found on this machine or fetched from a registry, checked, and made
//! into the root file system of a bundle.
//!
//! ```text
//! directory, archive ──local──┐
//!                             ├──▶ OciImage: layers, process ──storage::build──▶ bundle
//! registry ──────────registry─┘
//! ```
//! Each piece is what the digest above it says, down to the uncompressed layers.

mod local;
mod model;
mod reference;
#[cfg(feature = "download")]
pub mod registry;
mod source;

pub use local::open;
pub use reference::Reference;

use std::fmt::Debug;

use crate::spec::Arch;
use crate::storage::process::ImageProcess;
use crate::storage::rootfs::{LayerFile, RootSource};

/// Which image is wanted of those that there are.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Wanted {
    /// The architecture of the guest.
    pub arch: Arch,
    /// The image's name, where an archive or a layout holds several.
    pub name: Option<String>,
}

impl Wanted {
    /// The only image there is for this architecture.
    pub fn for_arch(arch: Arch) -> Self {
        Self { arch, name: None }
    }

    /// The image of this name.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }
}

/// An image whose manifest and configuration are read and verified. Its layers are verified
/// as they are unpacked.
#[derive(Debug)]
pub struct OciImage {
    arch: Arch,
    digest: String,
    name: Option<String>,
    layers: Vec<LayerFile>,
    process: ImageProcess,
    /// Holds the layers where they are: what was uncompressed, or a lock on the store's.
    holder: Option<Box<dyn Debug + Send + Sync>>,
}

impl OciImage {
    /// The architecture it is for.
    pub fn arch(&self) -> Arch {
        self.arch
    }

    /// The digest of its manifest, or of its configuration in an archive of Docker's, which
    /// has no other.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The name it goes by where it was found.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Its layers, the lowest first. They are there as long as this is.
    pub fn layers(&self) -> &[LayerFile] {
        &self.layers
    }

    /// What it says is run in it.
    pub fn process(&self) -> &ImageProcess {
        &self.process
    }

    fn held_by(mut self, holder: impl Debug + Send + Sync + 'static) -> Self {
        self.holder = Some(Box::new(holder));
        self
    }

    /// What its root file system is made from.
    pub fn root(&self) -> RootSource {
        RootSource::Layers(self.layers.clone())
    }
}

#[cfg(test)]
mod tests;
