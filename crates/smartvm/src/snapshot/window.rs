//! A snapshot's files where a jailed Firecracker can write them: for the time of its writing
//! they are its group's, and bound into its root.

use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};
use crate::jail::{self, Bind};
use crate::rundir::{RunDir, VmState};

/// Where Firecracker finds the files for state and memory, seen from its root.
const WAYS: [&str; 2] = ["snapshot-state.making", "snapshot-memory.making"];

/// The way out of a jail for state and memory.
pub(super) struct Window {
    root: PathBuf,
    files: [PathBuf; 2],
}

impl Window {
    /// Opens it for these files, which were made before.
    pub(super) fn open(run_dir: &RunDir, state: &VmState, files: [PathBuf; 2]) -> Result<Self> {
        let vmm = state.vmm.as_ref().ok_or_else(|| {
            let message = format!("VM {} has no process", run_dir.id());
            Error::new(ErrorKind::WrongState, message)
        })?;
        let root = state.root(run_dir).path().to_owned();
        shut(&root)?;
        let group = jail::group_of(&root)?;
        let this = Self { root, files };
        let opened = (|| {
            let mut binds = Vec::new();
            for (file, way) in this.files.iter().zip(WAYS) {
                give(file, group, 0o660)?;
                let target = this.root.join(way);
                std::fs::OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .mode(0o600)
                    .open(&target)
                    .map_err(|e| Error::io("making a place for", &target, e))?;
                binds.push(Bind {
                    source: file.clone(),
                    target,
                    writable: true,
                });
            }
            jail::mounts::bind_into(vmm, &this.root, &binds)
        })();
        match opened {
            Ok(()) => Ok(this),
            Err(e) => Err(e.with_cleanup(this.close().err())),
        }
    }

    /// State and memory, seen from Firecracker's root.
    pub(super) fn ways(&self) -> [&'static str; 2] {
        WAYS
    }

    /// Takes the files back.
    pub(super) fn close(self) -> Result<()> {
        let shut = shut(&self.root);
        for file in &self.files {
            give(file, rustix::process::getegid().as_raw(), 0o600)?;
        }
        super::share_with_jails(&self.files[1])?;
        shut
    }
}

fn give(file: &Path, group: u32, mode: u32) -> Result<()> {
    lchown(file, None, Some(group))
        .and_then(|()| std::fs::set_permissions(file, std::fs::Permissions::from_mode(mode)))
        .map_err(|e| Error::io("giving to the VM's group", file, e))
}

/// Removes the places in the jail, also those of whoever died before: what is bound there goes
/// with them.
pub(super) fn shut(root: &Path) -> Result<()> {
    for way in WAYS {
        let place = root.join(way);
        match std::fs::remove_file(&place) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io("removing", &place, e));
            }
            _ => {}
        }
    }
    Ok(())
}
