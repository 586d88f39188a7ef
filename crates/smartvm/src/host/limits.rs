//! Limits on this process.

use serde::{Deserialize, Serialize};

/// How many file descriptors this process may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct OpenFiles {
    /// The limit in force; `None`: no limit.
    pub soft: Option<u64>,
    /// What it may be raised to; `None`: no limit.
    pub hard: Option<u64>,
}

impl OpenFiles {
    pub(super) fn gather() -> Self {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        Self {
            soft: limit.current,
            hard: limit.maximum,
        }
    }
}
