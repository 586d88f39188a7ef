//! The lock that orders operations on one VM, among threads and processes.

#[cfg(feature = "network")]
mod shared;

use std::fs::{File, OpenOptions, TryLockError};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

#[cfg(feature = "network")]
pub(crate) use shared::open_shared;

use crate::error::{Error, ErrorKind, Result};

/// What is read at most of what the holder says.
const MOST_BYTES: usize = 512;

/// What a holder writes at least, padded: more than any of them has to say.
const USUAL_BYTES: usize = 128;

/// What is told where it isn't known who holds a lock.
const UNTOLD: &str = "another operation holds its lock";

/// How long is slept at most until a lock is tried again.
const LONGEST_PAUSE: Duration = Duration::from_millis(4);

/// Who holds a lock, and why: written into the lock file for those who wait in vain.
#[derive(Serialize, Deserialize)]
struct Holder {
    pid: u32,
    doing: String,
}

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
        wait(&file, path, &what, patience, held_by)?;
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
        let lock = Self { file };
        lock.say(doing);
        Ok(lock)
    }

    /// Lets go, and keeps the file open. `None` if the kernel doesn't let go: closing it does.
    pub(crate) fn unlock(self) -> Option<Unlocked> {
        let unlocked = self.file.unlock();
        unlocked.ok().map(|()| Unlocked { file: self.file })
    }

    /// Says what it is held for: those who wait in vain are told.
    fn say(&self, doing: &str) {
        let holder = Holder {
            pid: std::process::id(),
            doing: doing.to_owned(),
        };
        // It only helps to understand: a full disk must not keep anybody from cleaning up.
        let _unsaid = serde_json::to_vec(&holder)
            .map_err(std::io::Error::other)
            .and_then(|mut text| {
                // Over all of what another holder said.
                text.resize(text.len().max(USUAL_BYTES), b' ');
                self.file.write_all_at(&text, 0)
            });
    }
}

/// The file of a lock that was held, and may be again. Whether it is still the lock of that VM is
/// for its holder to find out.
#[derive(Debug)]
pub(crate) struct Unlocked {
    file: File,
}

impl Unlocked {
    /// Takes the lock to do something, if nobody holds it.
    pub(crate) fn try_lock(self, doing: &str) -> Option<Lock> {
        self.file.try_lock().ok()?;
        let lock = Lock { file: self.file };
        lock.say(doing);
        Some(lock)
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

/// What the holder of this locked file says.
fn held_by(file: &File) -> String {
    let mut text = [0; MOST_BYTES];
    let length = file.read_at(&mut text, 0).unwrap_or(0);
    match serde_json::from_slice::<Holder>(&text[..length]) {
        Ok(Holder { pid, doing }) => format!("process {pid} is {doing} it"),
        Err(_) => UNTOLD.into(),
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
}
