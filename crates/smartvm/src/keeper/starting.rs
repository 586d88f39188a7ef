//! A keeper whose program loads while its VM is still being made.

use tokio::task::JoinHandle;

use super::Link;
use crate::error::{Error, ErrorKind, Result};

/// It keeps nothing yet. Dropping this ends it.
#[derive(Debug)]
pub(crate) struct Starting(JoinHandle<Result<Link>>);

impl Starting {
    /// Begins to start it, on another thread.
    pub(super) fn begin(start: impl FnOnce() -> Result<Link> + Send + 'static) -> Self {
        Self(tokio::task::spawn_blocking(start))
    }

    /// The hold on it.
    pub(crate) async fn link(self) -> Result<Link> {
        self.0
            .await
            .unwrap_or_else(|e| Err(Error::new(ErrorKind::Io, "a worker thread failed").because(e)))
    }

    /// Ends it again, as its VM wasn't made.
    pub(crate) async fn end(self) -> Result<()> {
        let link = self.link().await?;
        crate::vm::blocking(move || link.end()).await
    }
}
