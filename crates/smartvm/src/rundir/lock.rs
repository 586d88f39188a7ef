//! The lock that orders operations on one VM, among threads and processes.

mod holder;
#[cfg(feature = "network")]
mod shared;

use std::fs::{File, OpenOptions, TryLockError};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

#[cfg(feature = "network")]
pub(crate) use shared::open_shared;

use self::holder::Holder;
use crate::error::{Error, ErrorKind, Result};

/// How long is slept at most until a lock is tried again.
const LONGEST_PAUSE: Duration = Duration::from_millis(4);

/// A held lock (`flock(2)`): released when dropped, also by the death of the process.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

impl Lock {
    /// Makes the lock file and takes the lock, which nobody else can know yet.
    pub(super) fn acquire_new(path: &Path) -> Result<Self> {
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(|e| Error::io("making the lock", path, e))?;
        file.lock().map_err(|e| Error::io("locking", path, e))?;
        Ok(Self { file })
    }

    /// Takes the lock to do something, as in "pausing", waiting at most `patience` for whoever
    /// holds it.
    pub(super) fn acquire(path: &Path, vm: &str, doing: &str, patience: Duration) -> Result<Self> {
        let what = format!("VM {vm}");
        let file = open(path, &what)?;
        wait(&file, path, &what, patience, holder::told)?;
        Self::locked(file, path, &what, doing)
    }

    /// Takes the lock to do something, if nobody holds it.
    pub(super) fn acquire_free(path: &Path, vm: &str, doing: &str) -> Result<Option<Self>> {
        let what = format!("VM {vm}");
        let file = open(path, &what)?;
        match file.try_lock() {
            Ok(()) => Self::locked(file, path, &what, doing).map(Some),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(e)) => Err(Error::io("locking", path, e)),
        }
    }

    fn locked(file: File, path: &Path, what: &str, doing: &str) -> Result<Self> {
        // Whoever held it may have removed the run dir meanwhile.
        path.metadata().map_err(|e| gone(path, what, e))?;
        Holder::this(doing).say(&file);
        Ok(Self { file })
    }

    /// Lets go, and keeps the file open. `None` if the kernel doesn't let go: closing it does.
    pub(crate) fn unlock(self) -> Option<Unlocked> {
        let unlocked = self.file.unlock();
        unlocked.ok().map(|()| Unlocked { file: self.file })
    }
}

/// The file of a lock that was held, and may be again. Whether it is still the lock of that VM is
/// for its holder to find out.
#[derive(Debug)]
pub(crate) struct Unlocked {
    file: File,
}

impl Unlocked {
    /// Takes the lock to do what it was held for, if nobody holds it. That isn't said again: this
    /// may be done often.
    pub(crate) fn try_lock(self) -> Option<Lock> {
        self.file.try_lock().ok()?;
        Some(Lock { file: self.file })
    }
}

impl AsFd for Lock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn wait(
    file: &File,
    path: &Path,
    what: &str,
    patience: Duration,
    holder: impl Fn(&File) -> String,
) -> Result<()> {
    let deadline = Instant::now() + patience;
    let mut pause = Duration::from_micros(100);
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(e)) => return Err(Error::io("locking", path, e)),
            Err(TryLockError::WouldBlock) if Instant::now() >= deadline => {
                return Err(Error::new(
                    ErrorKind::WrongState,
                    format!("{what} is busy: {}", holder(file)),
                )
                .at(path)
                .hint("try again when that operation is done"));
            }
            Err(TryLockError::WouldBlock) => {}
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

fn open(path: &Path, what: &str) -> Result<File> {
    let file = OpenOptions::new().read(true).write(true).open(path);
    file.map_err(|e| gone(path, what, e))
}

fn gone(path: &Path, what: &str, cause: std::io::Error) -> Error {
    match cause.kind() {
        std::io::ErrorKind::NotFound => Error::new(ErrorKind::NotFound, format!("{what} is gone")),
        _ => Error::io("opening the lock", path, cause),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_in_vain_is_told_who_holds_the_lock_and_why() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        drop(Lock::acquire_new(&path).unwrap());
        let held = Lock::acquire(&path, "a", "pausing", Duration::ZERO).unwrap();
        let refused =
            Lock::acquire(&path, "a", "working on", Duration::from_millis(5)).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::WrongState);
        let expected = format!("VM a is busy: process {} is pausing it", std::process::id());
        assert_eq!(refused.to_string(), expected);
        drop(held);
        Lock::acquire(&path, "a", "working on", Duration::ZERO).unwrap();
    }

    #[test]
    fn who_takes_a_lock_again_is_told_without_having_said_so() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        drop(Lock::acquire_new(&path).unwrap());
        let refused = || {
            let refused = Lock::acquire(&path, "a", "working on", Duration::ZERO);
            refused.unwrap_err().to_string()
        };
        let take = || Lock::acquire(&path, "a", "pausing", Duration::ZERO).unwrap();
        let again = take().unlock().unwrap().try_lock().unwrap();
        let me = std::process::id();
        assert_eq!(
            refused(),
            format!("VM a is busy: process {me} is pausing it")
        );
        // Another one said something meanwhile, and did it.
        let said = format!(r#"{{"pid":{},"doing":"stopping"}}"#, me + 1);
        std::fs::write(&path, said).unwrap();
        assert_eq!(
            refused(),
            format!("VM a is busy: process {me} is working on it")
        );
        drop(again);
        assert!(take().unlock().is_some());
    }
}
