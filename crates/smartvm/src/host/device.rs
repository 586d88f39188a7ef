//! Device nodes that must open.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// Whether a device can be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum Access {
    /// It isn't there, or nothing is behind its node.
    Missing,
    /// It is there, but this process may not open it.
    Forbidden,
    /// It can't be used for another reason, which is told.
    Broken(String),
    /// It opens.
    Usable,
}

/// Opens a device for reading and writing.
pub(super) fn open(path: &Path) -> Result<File, Access> {
    OpenOptions::new()
        .read(true)
        .write(true)
        // A FIFO in its place mustn't hang us, nor a terminal become ours.
        .custom_flags((rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY).bits() as i32)
        .open(path)
        .map_err(|error| match error.kind() {
            ErrorKind::NotFound => Access::Missing,
            ErrorKind::PermissionDenied => Access::Forbidden,
            _ => match Errno::from_io_error(&error) {
                Some(Errno::NXIO | Errno::NODEV) => Access::Missing,
                _ => Access::Broken(error.to_string()),
            },
        })
}

/// Whether a device can be used, as opening it tells.
pub(super) fn access(path: &Path) -> Access {
    match open(path) {
        Ok(_) => Access::Usable,
        Err(access) => access,
    }
}
