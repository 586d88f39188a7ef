//! Where a snapshot's files are.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};

/// The names inside a snapshot's directory.
pub(super) const MANIFEST: &str = "manifest.json";
pub(super) const DRIVES: &str = "drives";
pub(super) const USES: &str = "uses";
pub(super) const CHILDREN: &str = "children";
pub(super) const MERGED: &str = "memory";
pub(super) const LOCK: &str = "lock";
/// The state file before the snapshot is whole.
pub(super) const STATE: &str = "state";

/// The files of one snapshot: state and memory exactly where they were asked for, the rest in
/// a directory beside the state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    state: PathBuf,
    memory: PathBuf,
}

impl Place {
    /// The snapshot with these files, made absolute.
    pub fn new(state: &Path, memory: &Path) -> Result<Self> {
        let absolute = |path: &Path| {
            if path.file_name().is_none() {
                let message = format!("{} names no file", path.display());
                return Err(Error::new(ErrorKind::Invalid, message).at(path));
            }
            std::path::absolute(path).map_err(|e| Error::io("finding", path, e))
        };
        Ok(Self {
            state: absolute(state)?,
            memory: absolute(memory)?,
        })
    }

    /// The snapshot whose files are all in one directory, as the command line has them.
    pub fn in_directory(dir: &Path) -> Result<Self> {
        Self::new(&dir.join("state"), &dir.join("memory"))
    }

    /// The state of the virtual machine.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// The guest's memory.
    pub fn memory(&self) -> &Path {
        &self.memory
    }

    /// The directory of manifest and drives: `<state>.d`.
    pub fn dir(&self) -> PathBuf {
        let mut name: OsString = self.state.as_os_str().to_owned();
        name.push(".d");
        name.into()
    }

    pub(super) fn manifest(&self) -> PathBuf {
        self.dir().join(MANIFEST)
    }

    /// The directory while the snapshot is made.
    pub(super) fn work(&self) -> PathBuf {
        hidden(&self.dir())
    }

    /// The memory file while the snapshot is made.
    pub(super) fn memory_work(&self) -> PathBuf {
        hidden(&self.memory)
    }

    /// The directory that holds the state file.
    pub(super) fn parent(&self) -> &Path {
        self.state.parent().unwrap_or(Path::new("/"))
    }
}

/// The name of `path` while it is made: in the same directory, hidden.
fn hidden(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".making");
    path.with_file_name(name)
}
