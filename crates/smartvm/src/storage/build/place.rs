//! The output directory: made beside its place, moved there when it is whole.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use tempfile::TempDir;

use crate::storage::bundle::{MANIFEST, read_manifest};
use crate::storage::private_dir;
use crate::{Error, ErrorKind, Result};

/// Where a bundle is to be.
pub(super) struct Output {
    path: PathBuf,
    parent: PathBuf,
    /// Whether a directory is there already: an empty one, or a bundle to replace.
    replaces: bool,
}

impl Output {
    /// Refuses what would be lost.
    pub(super) fn new(output: &Path, replace: bool) -> Result<Self> {
        let path = std::path::absolute(output)
            .map_err(|cause| Error::io("finding the directory of", output, cause))?;
        let Some(parent) = path.parent().map(Path::to_owned) else {
            return Err(Error::new(
                ErrorKind::Invalid,
                "the output can't be the root directory",
            ));
        };
        let replaces = match fs::symlink_metadata(&path) {
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => false,
            Err(cause) => return Err(Error::io("looking at", &path, cause)),
            Ok(metadata) if !metadata.is_dir() => {
                return Err(Error::new(
                    ErrorKind::WrongState,
                    format!("the output {} exists and isn't a directory", path.display()),
                )
                .at(path));
            }
            Ok(_) => true,
        };
        if replaces && !is_empty(&path)? {
            check_replaceable(&path, replace)?;
        }
        Ok(Self {
            path,
            parent,
            replaces,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// A private directory on the same file system.
    pub(super) fn work_dir(&self) -> Result<TempDir> {
        private_dir(".smartvm-bundle-", &self.parent)
    }

    /// Moves the directory into place; what was there before is deleted afterwards.
    pub(super) fn put(self, work: TempDir) -> Result<()> {
        let failed = |cause: std::io::Error| Error::io("moving the bundle to", &self.path, cause);
        if !self.replaces {
            // Fails if meanwhile something else is there.
            renameat_with(CWD, work.path(), CWD, &self.path, RenameFlags::NOREPLACE)
                .map_err(|cause| failed(cause.into()))?;
            // What it named is elsewhere now.
            let _ = work.keep();
            return Ok(());
        }
        match renameat_with(CWD, work.path(), CWD, &self.path, RenameFlags::EXCHANGE) {
            // The private directory is the old bundle now.
            Ok(()) => work
                .close()
                .map_err(|cause| Error::io("deleting the bundle that was at", &self.path, cause)),
            Err(cause) => Err(failed(cause.into())),
        }
    }
}

fn is_empty(dir: &Path) -> Result<bool> {
    let mut entries = fs::read_dir(dir).map_err(|cause| Error::io("looking into", dir, cause))?;
    Ok(entries.next().is_none())
}

/// Only a bundle is replaced, and only where that is asked for.
fn check_replaceable(path: &Path, replace: bool) -> Result<()> {
    let refused = |what: &str, hint: &str| {
        Error::new(
            ErrorKind::WrongState,
            format!("the output {} {what}", path.display()),
        )
        .at(path)
        .hint(hint)
    };
    if read_manifest(path).is_err() {
        return Err(refused(
            "isn't empty, and isn't a bundle that could be replaced",
            "choose another directory",
        ));
    }
    if !replace {
        return Err(refused(
            "is a bundle already",
            "choose another directory, or ask for it to be replaced",
        ));
    }
    // A bundle that somebody keeps other things in.
    let known = [MANIFEST, super::KERNEL, super::INITRAMFS];
    let known: Vec<&str> = known.into_iter().chain(super::ROOTFS).collect();
    let entries = fs::read_dir(path).map_err(|cause| Error::io("looking into", path, cause))?;
    for entry in entries {
        let entry = entry.map_err(|cause| Error::io("looking into", path, cause))?;
        let name = entry.file_name();
        if !known.iter().any(|known| name == *known) {
            return Err(refused(
                &format!("holds {} besides the bundle", name.to_string_lossy()),
                "move it elsewhere, or choose another directory",
            ));
        }
    }
    Ok(())
}
