//! The host side of the guest protocol.

use std::path::PathBuf;
use std::time::Duration;

use crate::{Error, ErrorKind, Result};

/// The agent of one guest.
#[derive(Debug)]
pub struct Agent;

impl Agent {
    /// The agent behind this socket.
    pub fn over_vsock(_socket: impl Into<PathBuf>) -> Self {
        Self
    }

    /// How long it may take.
    #[must_use]
    pub fn with_patience(self, _patience: Duration) -> Self {
        self
    }

    /// Asks the guest to shut down.
    pub async fn shutdown(&self) -> Result<()> {
        Err(Error::new(ErrorKind::Guest, "no agent yet"))
    }
}
