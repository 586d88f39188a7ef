//! Who makes a tunnel work.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Who makes a device work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum Maker {
    /// The kernel's own WireGuard.
    Kernel,
    /// A program in userspace.
    Userspace(PathBuf),
}

impl Maker {
    /// Its name, for people.
    pub fn name(&self) -> String {
        match self {
            Self::Kernel => "kernel".into(),
            Self::Userspace(program) => program
                .file_name()
                .unwrap_or(program.as_os_str())
                .to_string_lossy()
                .into_owned(),
        }
    }
}
