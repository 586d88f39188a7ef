//! Which bundles were verified, so that a run doesn't hash gigabytes that nobody touched.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::checksum::sha256_of;
use super::{Artifact, Bundle, Watch};
use crate::durable;
use crate::{Error, Result};

const FORMAT: u32 = 1;

/// What a file was when it was verified: any change shows in one of these.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stamp {
    path: PathBuf,
    sha256: Option<String>,
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stamps {
    artifacts: Vec<Stamp>,
}

impl Stamp {
    fn of(artifact: &Artifact) -> Result<Self> {
        let path = &artifact.path;
        let found = path
            .metadata()
            .map_err(|e| Error::io("looking at", path, e))?;
        Ok(Self {
            path: path.clone(),
            sha256: artifact.sha256.clone(),
            device: found.dev(),
            inode: found.ino(),
            size: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        })
    }
}

impl Bundle {
    /// Verifies it, unless it was verified before and no file of it changed since: device,
    /// inode, size, modification and change time tell. What was verified is kept in `dir`.
    ///
    /// # Errors
    /// As for [`Bundle::verify`].
    pub fn verify_once(&self, dir: &Path, watch: &mut Watch<'_>) -> Result<()> {
        // Taken before verifying: what changes meanwhile is verified again the next time.
        let now = self.stamps()?;
        let file = self.stamps_file(dir);
        // A record that can't be read is as good as none.
        if durable::read_state(&file, FORMAT).is_ok_and(|known| known.as_ref() == Some(&now)) {
            return Ok(());
        }
        self.verify(watch)?;
        durable::private_dir(dir)?;
        durable::write_state(&file, FORMAT, &now)
    }

    /// Notes that it is as its manifest says: by who hashed every byte of it just now.
    #[cfg(feature = "download")]
    pub(crate) fn mark_verified(&self, dir: &Path) -> Result<()> {
        durable::private_dir(dir)?;
        durable::write_state(&self.stamps_file(dir), FORMAT, &self.stamps()?)
    }

    fn stamps(&self) -> Result<Stamps> {
        let artifacts = self.artifacts().map(Stamp::of).collect::<Result<_>>()?;
        Ok(Stamps { artifacts })
    }

    fn stamps_file(&self, dir: &Path) -> PathBuf {
        let name = sha256_of(self.dir().as_os_str().as_encoded_bytes());
        dir.join(format!("{name}.json"))
    }
}
