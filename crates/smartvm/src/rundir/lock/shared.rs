//! Locks that aren't one VM's, but the network's.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use super::{Lock, UNTOLD, wait};
use crate::error::{Error, Result};

/// So many bytes are read of the kernel's list of locks.
const MOST_LOCKS: u64 = 1 << 20;

impl Lock {
    /// Takes a lock that isn't one VM's, made where it is missing. It is taken too often for
    /// its holder to say so: the kernel knows.
    pub(crate) fn shared(path: &Path, what: &str, patience: Duration) -> Result<Self> {
        let file = open_shared(path)?;
        let holder = |file: &File| match holder_by_kernel(file) {
            Some(pid) => format!("process {pid} is working on it"),
            None => UNTOLD.to_owned(),
        };
        wait(&file, path, what, patience, holder)?;
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

/// The process that holds this locked file, by the kernel's list.
fn holder_by_kernel(file: &File) -> Option<u32> {
    let found = file.metadata().ok()?;
    let (major, minor) = (
        rustix::fs::major(found.dev()),
        rustix::fs::minor(found.dev()),
    );
    let place = format!("{major:02x}:{minor:02x}:{}", found.ino());
    let mut locks = String::new();
    let list = File::open("/proc/locks").ok()?;
    list.take(MOST_LOCKS).read_to_string(&mut locks).ok()?;
    locks.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [_, "FLOCK", _, "WRITE", pid, at, ..] if *at == place => pid.parse().ok(),
            _ => None,
        }
    })
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
