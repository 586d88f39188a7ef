//! The lock that orders operations on one VM, among threads and processes.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result};

/// A held lock (`flock(2)`): released when dropped, also by the death of the process.
#[derive(Debug)]
pub struct Lock {
    _file: File,
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
        Ok(Self { _file: file })
    }

    /// Takes a lock that isn't one VM's, made where it is missing.
    pub(crate) fn shared(path: &Path, what: &str, patience: Duration) -> Result<Self> {
        OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)
            .map_err(|e| Error::io("making the lock", path, e))?;
        Self::wait(path, what, patience)
    }

    /// Takes the lock, waiting at most `patience` for whoever holds it.
    pub(super) fn acquire(path: &Path, vm: &str, patience: Duration) -> Result<Self> {
        Self::wait(path, &format!("VM {vm}"), patience)
    }

    fn wait(path: &Path, what: &str, patience: Duration) -> Result<Self> {
        let gone = |e| match std::io::Error::kind(&e) {
            std::io::ErrorKind::NotFound => {
                Error::new(ErrorKind::NotFound, format!("{what} is gone"))
            }
            _ => Error::io("opening the lock", path, e),
        };
        let deadline = Instant::now() + patience;
        let mut pause = Duration::from_micros(100);
        let file = OpenOptions::new().write(true).open(path).map_err(gone)?;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(e)) => return Err(Error::io("locking", path, e)),
                Err(TryLockError::WouldBlock) if Instant::now() >= deadline => {
                    return Err(Error::new(
                        ErrorKind::WrongState,
                        format!("{what} is busy: another operation holds its lock"),
                    )
                    .at(path)
                    .hint("try again when that operation is done"));
                }
                Err(TryLockError::WouldBlock) => {}
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
        // Whoever held it may have removed the run dir meanwhile.
        path.metadata().map_err(gone)?;
        Ok(Self { _file: file })
    }
}
