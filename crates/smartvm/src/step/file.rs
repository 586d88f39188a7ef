//! Steps on files, directories and drives.

use std::io::ErrorKind as IoKind;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode};
use serde::{Deserialize, Serialize};

use crate::durable;
use crate::error::{Error, ErrorKind, Result};
use crate::process::boot_id;
use crate::storage;

const OWNER_FORMAT: u32 = 1;
const OWNER_FILE: &str = "smartvm-owner.json";

/// Who a directory outside the runtime directory belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Owner {
    vm: String,
    runtime_dir: PathBuf,
    boot_id: String,
}

impl Owner {
    pub(crate) fn new(vm: &str, runtime_dir: &Path) -> Result<Self> {
        Ok(Self {
            vm: vm.to_owned(),
            runtime_dir: runtime_dir.to_owned(),
            boot_id: boot_id()?.to_owned(),
        })
    }

    /// The owner of a directory; `None` if it isn't claimed.
    pub(crate) fn read(dir: &Path) -> Result<Option<Self>> {
        durable::read_state(&dir.join(OWNER_FILE), OWNER_FORMAT)
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

pub(super) fn make_dir(path: &Path) -> Result<()> {
    std::fs::DirBuilder::new()
        .mode(0o700)
        .create(path)
        .map_err(|e| Error::io("making directory", path, e))
}

pub(super) fn remove_dir(path: &Path) -> Result<()> {
    ignore_missing(std::fs::remove_dir(path)).map_err(|e| Error::io("removing directory", path, e))
}

pub(crate) fn claim_dir(path: &Path, vm: &str, runtime_dir: &Path) -> Result<()> {
    make_dir(path)?;
    let owner = Owner::new(vm, runtime_dir)?;
    durable::write_state(&path.join(OWNER_FILE), OWNER_FORMAT, &owner)
}

pub(super) fn give_back_dir(path: &Path, vm: &str, runtime_dir: &Path) -> Result<()> {
    let file = path.join(OWNER_FILE);
    if let Some(owner) = Owner::read(path)?
        && !owner.is_of(vm, runtime_dir)
    {
        return Err(owner.refuse(path));
    }
    remove(&file)?;
    remove_dir(path)
}

pub(super) fn link(path: &Path, target: &Path) -> Result<()> {
    std::os::unix::fs::symlink(target, path).map_err(|e| Error::io("making link", path, e))
}

pub(crate) fn make_fifo(path: &Path) -> Result<()> {
    rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
        .map_err(|e| Error::io("making pipe", path, e))
}

pub(super) fn ensure_file(path: &Path) -> Result<()> {
    // Neither truncated nor changed where it is there; opening a FIFO for reading and
    // writing never blocks.
    std::fs::OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
        .map(drop)
        .map_err(|e| Error::io("making", path, e))
}

pub(super) fn stage_drive(
    drive_id: &str,
    source: &Path,
    target: &Path,
    cancelled: &dyn Fn() -> bool,
) -> Result<()> {
    let dir = target.parent().unwrap_or(Path::new("/"));
    let needed = storage::allocated_bytes(source)?;
    storage::require_free(dir, needed, &format!("the copy of drive {drive_id}"))?;
    storage::copy_sparse(source, target, cancelled).map(drop)
}

pub(super) fn reserve_socket(path: &Path) -> Result<()> {
    match path.symlink_metadata() {
        Err(e) if e.kind() == IoKind::NotFound => Ok(()),
        Err(e) => Err(Error::io("looking at", path, e)),
        Ok(found) => {
            let what = if !found.file_type().is_socket() {
                "there is something else there"
            } else if std::os::unix::net::UnixStream::connect(path).is_ok() {
                "another process listens there"
            } else {
                "a socket that nobody listens on was left there"
            };
            Err(Error::new(
                ErrorKind::WrongState,
                format!("the socket {} can't be made: {what}", path.display()),
            )
            .at(path)
            .hint("remove it if nobody needs it, or use another path"))
        }
    }
}

pub(super) fn remove_socket(path: &Path) -> Result<()> {
    match path.symlink_metadata() {
        Ok(found) if found.file_type().is_socket() => remove(path),
        Ok(_) => Ok(()),
        Err(e) if e.kind() == IoKind::NotFound => Ok(()),
        Err(e) => Err(Error::io("looking at", path, e)),
    }
}

pub(super) fn remove(path: &Path) -> Result<()> {
    ignore_missing(std::fs::remove_file(path)).map_err(|e| Error::io("removing", path, e))
}

fn ignore_missing(done: std::io::Result<()>) -> std::io::Result<()> {
    match done {
        Err(e) if matches!(e.kind(), IoKind::NotFound | IoKind::NotADirectory) => Ok(()),
        other => other,
    }
}
