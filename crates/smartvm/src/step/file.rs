//! Steps on files, directories and drives.

use std::io::ErrorKind as IoKind;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode};

use crate::error::{Error, ErrorKind, Result};
use crate::storage;

use super::owner::{self, Owner};

pub(crate) fn make_dir(path: &Path) -> Result<()> {
    std::fs::DirBuilder::new()
        .mode(0o700)
        .create(path)
        .map_err(|e| Error::io("making directory", path, e))
}

pub(super) fn remove_dir(path: &Path) -> Result<()> {
    ignore_missing(std::fs::remove_dir(path)).map_err(|e| Error::io("removing directory", path, e))
}

pub(super) fn claim_dir(path: &Path, vm: &str, runtime_dir: &Path) -> Result<()> {
    owner::claim(path, &Owner::of(vm, runtime_dir)?)
}

pub(super) fn give_back_dir(path: &Path, vm: &str, runtime_dir: &Path) -> Result<()> {
    if let Some(owner) = Owner::read(path)?
        && !owner.is_of(vm, runtime_dir)
    {
        return Err(owner.refuse(path));
    }
    owner::remove(path)?;
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
