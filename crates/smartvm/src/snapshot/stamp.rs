//! Which files were verified, so that a restore doesn't hash gigabytes that nobody touched.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::durable;
use crate::error::{Error, Result};

const FORMAT: u32 = 1;
const FILE: &str = "verified.json";

/// What a file was when it was verified: any change shows in one of these.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    pub(super) fn of(path: &Path) -> Result<Self> {
        let found = path
            .symlink_metadata()
            .map_err(|e| Error::io("looking at", path, e))?;
        Ok(Self {
            device: found.dev(),
            inode: found.ino(),
            size: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        })
    }

    /// Whether both are the same file, whatever became of its content and name.
    pub(super) fn same_file(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}

/// The stamps of a snapshot's files, by the names that they have in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stamps {
    files: BTreeMap<String, Stamp>,
}

impl Stamps {
    /// What was recorded in this directory; a record that can't be read is as good as none.
    pub(super) fn read(dir: &Path) -> Self {
        durable::read_state(&dir.join(FILE), FORMAT)
            .ok()
            .flatten()
            .unwrap_or_default()
    }

    pub(super) fn write(&self, dir: &Path) -> Result<()> {
        durable::write_state(&dir.join(FILE), FORMAT, self)
    }

    pub(super) fn get(&self, name: &str) -> Option<&Stamp> {
        self.files.get(name)
    }

    pub(super) fn set(&mut self, name: &str, stamp: Stamp) {
        self.files.insert(name.to_owned(), stamp);
    }
}
