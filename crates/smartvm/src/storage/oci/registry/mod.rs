//! Images in registries: found by name, their layers fetched once and kept by digest.
//!
//! The OCI distribution specification's pulling half, over the same client as all downloads.
//! What comes is bounded, and what the digest above it says, or refused.

mod credentials;
mod pull;
mod session;

use std::sync::Arc;

pub use credentials::Credentials;
pub use pull::Found;

use crate::storage::download::{self, Downloader};

/// So many layers are fetched at once: more make nothing faster, and registries angry.
const AT_ONCE: usize = 4;

/// What happens while an image is pulled.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// One of its layers is being downloaded.
    Layer {
        /// The layer.
        digest: String,
        /// What happens.
        event: download::Event,
    },
}

/// Gets what happens.
pub type Tell = Arc<dyn Fn(Event) + Send + Sync>;

/// Fetches images from registries.
#[derive(Debug, Clone)]
pub struct Registry {
    downloader: Downloader,
    credentials: Credentials,
    insecure: bool,
    at_once: usize,
}

impl Registry {
    /// By https, except where the registry is on this machine and speaks none.
    pub fn new(downloader: Downloader, credentials: Credentials) -> Self {
        Self {
            downloader,
            credentials,
            insecure: false,
            at_once: AT_ONCE,
        }
    }

    /// How many layers are fetched at once, at least 1. Default: 4.
    #[must_use]
    pub fn at_once(mut self, layers: usize) -> Self {
        self.at_once = layers.max(1);
        self
    }

    /// Whether registries elsewhere may be spoken to by http too, where they have no https.
    #[must_use]
    pub fn insecure(mut self, insecure: bool) -> Self {
        self.insecure = insecure;
        self
    }
}

#[cfg(test)]
mod tests;
