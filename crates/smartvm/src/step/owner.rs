//! The owner file: who a directory outside the runtime directory belongs to, so that it is
//! found after a crash or a reboot, and never taken from a live VM.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub(crate) use super::file::make_dir;
use super::file::remove as remove_file;
use crate::durable;
use crate::error::{Error, ErrorKind, Result};
use crate::process::boot_id;

const FORMAT: u32 = 1;
/// Its name.
pub(crate) const FILE: &str = "smartvm-owner.json";

/// Who a directory belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Owner {
    /// The VM's id.
    pub(crate) vm: String,
    /// The runtime directory that the VM belongs to.
    pub(crate) runtime_dir: PathBuf,
    /// The boot in which it was claimed.
    pub(crate) boot_id: String,
}

impl Owner {
    /// This VM, in this boot.
    pub(crate) fn of(vm: &str, runtime_dir: &Path) -> Result<Self> {
        Ok(Self {
            vm: vm.to_owned(),
            runtime_dir: runtime_dir.to_owned(),
            boot_id: boot_id()?.to_owned(),
        })
    }

    /// The owner of a directory; `None` if it isn't claimed.
    pub(crate) fn read(dir: &Path) -> Result<Option<Self>> {
        durable::read_state(&dir.join(FILE), FORMAT)
    }

    pub(crate) fn vm(&self) -> &str {
        &self.vm
    }

    pub(crate) fn runtime_dir(&self) -> &Path {
        &self.runtime_dir
    }

    pub(crate) fn is_of(&self, vm: &str, runtime_dir: &Path) -> bool {
        self.vm == vm && self.runtime_dir == runtime_dir
    }

    /// Whether the VM still has its run dir, whose ledger knows of what it holds.
    pub(crate) fn is_live(&self) -> bool {
        self.runtime_dir.join(&self.vm).symlink_metadata().is_ok()
    }

    pub(crate) fn refuse(&self, path: &Path) -> Error {
        let (vm, dir) = (&self.vm, self.runtime_dir.display());
        let message = format!("{} belongs to VM {vm} of {dir}", path.display());
        Error::new(ErrorKind::WrongState, message).at(path)
    }
}

/// Makes the directory, and its owner file in it.
pub(crate) fn claim(dir: &Path, owner: &Owner) -> Result<()> {
    make_dir(dir)?;
    mark(dir, owner)
}

/// Makes the owner file in a directory.
pub(crate) fn mark(dir: &Path, owner: &Owner) -> Result<()> {
    durable::write_state(&dir.join(FILE), FORMAT, owner)
}

/// The same for a directory that is recognised without it, should the host go down.
pub(crate) fn mark_until_restart(dir: &Path, owner: &Owner) -> Result<()> {
    durable::write_until_restart(&dir.join(FILE), FORMAT, owner)
}

/// Removes the owner file.
pub(crate) fn remove(dir: &Path) -> Result<()> {
    remove_file(&dir.join(FILE))
}
