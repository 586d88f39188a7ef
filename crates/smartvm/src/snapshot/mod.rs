//! Snapshots: a microVM's state, memory and drives, from which it goes on as often as wished,
//! under any id, in any runtime directory.
//!
//! docs/snapshots.md describes the files. [`MicroVm::snapshot`](crate::MicroVm::snapshot)
//! makes one, [`SmartVm::restore`](crate::SmartVm::restore) restores it.

mod capture;
pub(crate) mod claim;
mod content;
mod create;
mod host;
mod manifest;
pub(crate) mod merge;
mod options;
mod place;
mod recover;
mod refuse;
mod restore;
mod shelf;
mod stamp;
pub(crate) mod usage;
mod verify;
mod window;

use std::path::Path;

pub use host::Origin;
pub(crate) use manifest::drive_name;
pub use manifest::{DriveFile, FORMAT, FileSum, Manifest, Parent};
pub use options::{Moment, SnapshotOptions, Watch};
pub use place::Place;
pub(crate) use recover::{interrupted, recover};
pub use restore::RestoreOptions;
pub(crate) use restore::whole_memory;
pub use shelf::Shelf;

use crate::error::{Error, ErrorKind, Result};
use crate::spec::SnapshotType;

/// Lets the users of jails read a file, if the directory that it is in lets nobody in: there
/// its mode is of use only to whom it is bound to, and many VMs can share it.
pub(crate) fn share_with_jails(file: &Path) -> Result<()> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let dir = file.parent().unwrap_or(Path::new("/"));
    let found = dir
        .metadata()
        .map_err(|e| Error::io("looking at", dir, e))?;
    if found.mode() & 0o077 != 0 || found.uid() != rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o644))
        .map_err(|e| Error::io("sharing", file, e))
}

/// The most diffs that may build on each other.
const LONGEST_CHAIN: usize = 64;

/// A snapshot on disk, its manifest read and verified.
///
/// ```no_run
/// use std::path::Path;
///
/// use smartvm::snapshot::{Place, RestoreOptions, SnapshotOptions};
/// use smartvm::spec::{SnapshotCreateParams, SnapshotLoadParams};
/// use smartvm::{MicroVm, SmartVm};
///
/// # async fn example(smartvm: SmartVm, vm: MicroVm) -> smartvm::Result<()> {
/// let place = Place::in_directory(Path::new("/srv/snapshots/base"))?;
/// let create = SnapshotCreateParams::builder()
///     .snapshot_path(place.state())
///     .mem_file_path(place.memory());
/// let snapshot = vm.snapshot(&create.build(), &SnapshotOptions::default()).await?;
/// println!("{} bytes of memory", snapshot.manifest().memory.size_bytes);
///
/// let load = SnapshotLoadParams::builder()
///     .snapshot_path(place.state())
///     .mem_file_path(place.memory())
///     .resume_vm(true);
/// let mut options = RestoreOptions::default();
/// options.id = Some("web-2".parse()?);
/// let clone = smartvm.restore(&load.build(), &options).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Snapshot {
    place: Place,
    manifest: Manifest,
}

impl Snapshot {
    /// The snapshot with this state file and this memory file.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is none; [`ErrorKind::WrongState`] if there are files
    /// without a manifest; [`ErrorKind::Corrupt`] for a damaged or newer manifest.
    pub fn open(place: &Place) -> Result<Self> {
        let manifest = match Manifest::read(&place.manifest())? {
            Some(manifest) => manifest,
            None if place.state().exists() => {
                let message = format!("the snapshot {} has no manifest", place.state().display());
                return Err(Error::new(ErrorKind::WrongState, message)
                    .at(place.manifest())
                    .hint("if you trust its files, --unchecked restores it as it is"));
            }
            None => {
                let message = format!("there is no snapshot {}", place.state().display());
                return Err(Error::new(ErrorKind::NotFound, message)
                    .at(place.state())
                    .hint("`smartvm snapshot ls` lists them"));
            }
        };
        if !place.state().exists() {
            let message = format!(
                "the snapshot {} is not whole: its state file is missing",
                place.state().display()
            );
            return Err(Error::new(ErrorKind::Corrupt, message)
                .at(place.state())
                .hint("if its making was interrupted, `smartvm gc` removes the rest"));
        }
        Ok(Self {
            place: place.clone(),
            manifest,
        })
    }

    /// Where its files are.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// What it says of itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The VMs whose memory is its file now.
    pub fn users(&self) -> Result<Vec<String>> {
        usage::users(&self.place.dir(), &self.manifest.id)
    }

    /// This snapshot and those that it builds on, the full one first.
    pub fn chain(&self) -> Result<Vec<Self>> {
        let mut chain = vec![self.clone()];
        while let Some(parent) = chain.last().and_then(|last| last.manifest.parent.clone()) {
            let place = Place::new(&parent.snapshot_path, &parent.mem_file_path)?;
            let snapshot = Self::open(&place).map_err(|e| {
                let message = format!("the diff {} needs its parent", self.place.state().display());
                Error::new(ErrorKind::Corrupt, message).because(e)
            })?;
            if snapshot.manifest.id != parent.id || chain.len() > LONGEST_CHAIN {
                let message = format!(
                    "the diff {} builds on another snapshot than the one at {}",
                    self.place.state().display(),
                    parent.snapshot_path.display()
                );
                return Err(Error::new(ErrorKind::Corrupt, message).at(parent.snapshot_path));
            }
            chain.push(snapshot);
        }
        if chain
            .last()
            .is_some_and(|it| it.manifest.kind == SnapshotType::Diff)
        {
            let message = format!("the diff {} names no parent", self.place.state().display());
            return Err(Error::new(ErrorKind::Corrupt, message).at(self.place.manifest()));
        }
        chain.reverse();
        Ok(chain)
    }

    /// Removes it. The state goes first, so that what an interruption leaves is no snapshot, and
    /// `smartvm gc` removes the rest.
    ///
    /// # Errors
    /// [`ErrorKind::WrongState`] while VMs or diffs need it.
    pub fn remove(self) -> Result<()> {
        let dir = self.place.dir();
        let lock = usage::lock(&dir)?;
        let needed = |by: &str| {
            let message = format!(
                "the snapshot {} is needed {by}",
                self.place.state().display()
            );
            Error::new(ErrorKind::WrongState, message).at(self.place.state())
        };
        let users = self.users()?;
        if !users.is_empty() {
            let by = format!("by VM {}, whose memory it is", users.join(", "));
            return Err(needed(&by).hint("end the VM first"));
        }
        if let Some(child) = usage::children(&dir)?.first() {
            let by = format!("by the diff {}, which builds on it", child.display());
            return Err(needed(&by).hint("remove the diff first"));
        }
        claim::give_up(&self.place, &self.manifest.vm)?;
        drop(lock);
        Ok(())
    }
}
