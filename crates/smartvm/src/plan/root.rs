//! The directory in which Firecracker works.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The directory in which Firecracker works, and to which all paths that it is given are
/// relative: the VM's run dir, or its chroot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Root {
    path: PathBuf,
    jail: bool,
}

impl Root {
    pub(crate) fn run_dir(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            jail: false,
        }
    }

    pub(crate) fn jail(path: PathBuf) -> Self {
        Self { path, jail: true }
    }

    /// The directory, as this process sees it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is a chroot: what is in it must then be the VM's user's to use.
    pub fn is_jail(&self) -> bool {
        self.jail
    }

    /// A file in it, as this process sees it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}
