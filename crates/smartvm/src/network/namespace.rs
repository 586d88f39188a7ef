//! Which network namespace a thread is in.

use std::os::unix::fs::MetadataExt;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A network namespace of this boot, told from all others by its inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Namespace(u64);

impl Namespace {
    /// This thread's.
    pub(super) fn here() -> Result<Self> {
        let path = "/proc/thread-self/ns/net";
        let found = std::fs::metadata(path).map_err(|e| Error::io("looking at", path, e))?;
        Ok(Self(found.ino()))
    }
}
