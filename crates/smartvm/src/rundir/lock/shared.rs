//! Locks that aren't one VM's, but the network's.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use super::{Lock, holder, wait};
use crate::error::{Error, Result};

impl Lock {
    /// Takes a lock that isn't one VM's, made where it is missing. It is taken too often for
    /// its holder to say so: the kernel knows.
    pub(crate) fn shared(path: &Path, what: &str, patience: Duration) -> Result<Self> {
        let file = open_shared(path)?;
        wait(&file, path, what, patience, holder::told_by_kernel)?;
        Ok(Self { file })
    }
}

/// Opens a lock that isn't one VM's, made where it is missing.
pub(crate) fn open_shared(path: &Path) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|e| Error::io("making the lock", path, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_in_vain_is_told_by_the_kernel_who_holds_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b");
        let held = Lock::shared(&path, "the network", Duration::ZERO).unwrap();
        let refused = Lock::shared(&path, "the network", Duration::ZERO);
        let expected = format!(
            "the network is busy: process {} is working on it",
            std::process::id()
        );
        assert_eq!(refused.unwrap_err().to_string(), expected);
        drop(held);
        Lock::shared(&path, "the network", Duration::ZERO).unwrap();
    }
}
