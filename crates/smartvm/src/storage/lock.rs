//! Locks on files that may be renamed or removed while others wait for them.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::ErrorKind::{NotADirectory, NotFound};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use super::progress::go_on;
use crate::{Error, ErrorKind, Result};

/// A held lock (`flock(2)`): released when dropped, also by the death of the process.
#[derive(Debug)]
pub(crate) struct FileLock {
    _file: File,
}

/// Who else may hold it at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// Nobody.
    Alone,
    /// Others who share it too.
    Together,
}

impl FileLock {
    /// Takes the lock if nobody is in the way; the file is made where it is missing.
    pub(crate) fn attempt(path: &Path, sharing: Sharing) -> Result<Option<Self>> {
        loop {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32)
                .open(path)
                .map_err(|e| Error::io("opening the lock", path, e))?;
            let taken = match sharing {
                Sharing::Alone => file.try_lock(),
                Sharing::Together => file.try_lock_shared(),
            };
            match taken {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(e)) => return Err(Error::io("locking", path, e)),
            }
            // Whoever held it may have removed or replaced the file meanwhile.
            let same = match (file.metadata(), path.symlink_metadata()) {
                (Ok(ours), Ok(named)) => (ours.dev(), ours.ino()) == (named.dev(), named.ino()),
                _ => false,
            };
            if same {
                return Ok(Some(Self { _file: file }));
            }
        }
    }

    /// Whether somebody holds it now. Nothing is made.
    pub(crate) fn is_held(path: &Path) -> Result<bool> {
        let file = match OpenOptions::new().write(true).open(path) {
            Ok(file) => file,
            Err(e) if matches!(e.kind(), NotFound | NotADirectory) => return Ok(false),
            Err(e) => return Err(Error::io("opening", path, e)),
        };
        match file.try_lock() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(e)) => Err(Error::io("locking", path, e)),
        }
    }

    /// Takes the lock, waiting at most `patience` for whoever holds it.
    pub(crate) fn wait(
        path: &Path,
        sharing: Sharing,
        patience: Duration,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Self> {
        let deadline = Instant::now() + patience;
        let mut pause = Duration::from_micros(200);
        loop {
            if let Some(lock) = Self::attempt(path, sharing)? {
                return Ok(lock);
            }
            go_on(cancelled, "waiting for a lock")?;
            if Instant::now() >= deadline {
                return Err(busy(path));
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }
}

pub(super) fn busy(path: &Path) -> Error {
    Error::new(
        ErrorKind::WrongState,
        format!("another smartvm holds the lock {}", path.display()),
    )
    .at(path)
    .hint("try again when it is done")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_whose_file_was_replaced_is_taken_on_the_new_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = FileLock::attempt(&path, Sharing::Alone).unwrap().unwrap();
        assert!(FileLock::attempt(&path, Sharing::Alone).unwrap().is_none());
        assert!(
            FileLock::attempt(&path, Sharing::Together)
                .unwrap()
                .is_none()
        );
        std::fs::remove_file(&path).unwrap();
        let second = FileLock::attempt(&path, Sharing::Together)
            .unwrap()
            .unwrap();
        assert!(
            FileLock::attempt(&path, Sharing::Together)
                .unwrap()
                .is_some()
        );
        let late = FileLock::wait(&path, Sharing::Alone, Duration::ZERO, &|| false).unwrap_err();
        assert_eq!(late.kind(), ErrorKind::WrongState);
        drop((first, second));
    }
}
