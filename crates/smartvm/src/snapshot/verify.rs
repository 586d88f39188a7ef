//! Whether a snapshot's files are still what its manifest says.

use std::path::{Path, PathBuf};

use super::claim::MEMORY;
use super::manifest::FileSum;
use super::place::DRIVES;
use super::stamp::{Stamp, Stamps};
use super::{Snapshot, drive_name};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::{Watch, checksum::sha256_of_file};

impl Snapshot {
    /// Verifies the state, and memory and drives where they are not what they were when they
    /// were verified last; with `all`, these too.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`], naming the file.
    pub fn verify(&self, all: bool, watch: &mut Watch<'_>) -> Result<()> {
        let dir = self.place.dir();
        check("state", self.place.state(), &self.manifest.state, watch)?;
        let mut stamps = Stamps::read(&dir);
        let before = stamps.clone();
        for (name, path, sum) in self.large_files()? {
            let now = size_checked(&name, &path, sum)?;
            if all || stamps.get(&name) != Some(&now) {
                check(&name, &path, sum, watch)?;
                stamps.set(&name, now);
            }
        }
        if stamps != before {
            // A snapshot that can't be written to is verified each time.
            if let Err(e) = stamps.write(&dir) {
                tracing::debug!("remembering what was verified: {e}");
            }
        }
        Ok(())
    }

    /// Memory and drives: name, file, what it should be.
    pub(super) fn large_files(&self) -> Result<Vec<(String, PathBuf, &FileSum)>> {
        let memory = self.place.memory().to_owned();
        let mut files = vec![(MEMORY.to_owned(), memory, &self.manifest.memory)];
        for drive in &self.manifest.drives {
            let Some(name) = drive_name(&drive.path) else {
                let message = format!("drive path {:?} leads elsewhere", drive.path);
                return Err(Error::new(ErrorKind::Corrupt, message));
            };
            let path = self.place.dir().join(DRIVES).join(name);
            files.push((format!("drive {}", drive.drive_id), path, &drive.sum));
        }
        Ok(files)
    }
}

fn damaged(name: &str, path: &Path, why: &str) -> Error {
    let message = format!("the snapshot's {name}, {}, {why}", path.display());
    Error::new(ErrorKind::Corrupt, message)
        .at(path)
        .hint("restore another snapshot; this one can't be trusted any more")
}

fn size_checked(name: &str, path: &Path, sum: &FileSum) -> Result<Stamp> {
    let size = match path.symlink_metadata() {
        Ok(found) if found.is_file() => found.len(),
        Ok(_) => return Err(damaged(name, path, "is no regular file")),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(damaged(name, path, "is missing"));
        }
        Err(e) => return Err(Error::io("looking at", path, e)),
    };
    if size != sum.size_bytes {
        let why = format!(
            "has {size} bytes, and had {} when it was made",
            sum.size_bytes
        );
        return Err(damaged(name, path, &why));
    }
    Stamp::of(path)
}

fn check(name: &str, path: &Path, sum: &FileSum, watch: &mut Watch<'_>) -> Result<()> {
    size_checked(name, path, sum)?;
    if sha256_of_file(path, watch)? != sum.sha256 {
        return Err(damaged(
            name,
            path,
            "is not what it was: its checksum is another",
        ));
    }
    Ok(())
}
