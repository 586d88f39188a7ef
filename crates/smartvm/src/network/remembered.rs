//! What a state file says, remembered for as long as it is the same file.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use serde::de::DeserializeOwned;

use crate::durable;
use crate::error::{Error, Result};

/// What was read last of a file that is only ever replaced as a whole.
#[derive(Debug)]
pub(super) struct Remembered<T>(Mutex<Option<Reading<T>>>);

#[derive(Debug)]
struct Reading<T> {
    /// Device and inode. No other file gets that number while this one is open.
    file: (u64, u64),
    _open: File,
    says: T,
}

impl<T> Default for Remembered<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<T: Clone + DeserializeOwned> Remembered<T> {
    /// Does what [`durable::read_state`] does.
    pub(super) fn read(&self, path: &Path, format: u32) -> Result<Option<T>> {
        let looking = |e| Error::io("looking at", path, e);
        let mut remembered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reading) = &*remembered {
            match path.metadata() {
                Ok(found) if reading.file == (found.dev(), found.ino()) => {
                    return Ok(Some(reading.says.clone()));
                }
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(looking(e)),
                _ => *remembered = None,
            }
        }
        let Some((file, says)) = durable::open_state::<T>(path, format)? else {
            return Ok(None);
        };
        *remembered = Reading::of(file, &says);
        Ok(Some(says))
    }

    /// Forgets it.
    pub(super) fn forget(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Remembers what was just written into a file.
    pub(super) fn note(&self, file: File, says: &T) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Reading::of(file, says);
    }
}

impl<T: Clone> Reading<T> {
    /// Of this file; what can't be looked at is read again when it is asked for.
    fn of(file: File, says: &T) -> Option<Self> {
        let found = file.metadata().ok()?;
        Some(Self {
            file: (found.dev(), found.ino()),
            _open: file,
            says: says.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::durable::Staged;

    #[test]
    fn a_file_that_was_replaced_is_read_again_and_none_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.json");
        let remembered = Remembered::<std::collections::BTreeMap<String, u32>>::default();
        let read = || remembered.read(&path, 1).unwrap().map(|value| value["a"]);
        assert_eq!(read(), None);
        for number in 0..100 {
            let value = std::collections::BTreeMap::from([("a".to_owned(), number)]);
            let file = Staged::state(&path, 1, &value).unwrap();
            let file = file.publish_open().unwrap();
            if number % 3 == 0 {
                remembered.note(file, &value);
            }
            assert_eq!((read(), read()), (Some(number), Some(number)));
        }
        std::fs::remove_file(&path).unwrap();
        assert_eq!(read(), None);
    }
}
