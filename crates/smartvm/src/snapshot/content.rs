//! What a snapshot holds besides what Firecracker writes: the drives, the checksums, the manifest.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::capture::Captured;
use super::create::Making;
use super::manifest::{DriveFile, FileSum, Manifest};
use super::place::{DRIVES, MANIFEST, STATE};
use super::stamp::{Stamp, Stamps};
use super::{drive_name, host, share_with_jails};
use crate::durable::sync_dir;
use crate::error::{Error, ErrorKind, Result};
use crate::host::HostFacts;
use crate::jail::Seen;
use crate::rundir::VmState;
use crate::storage::checksum::sha256_of_file;
use crate::storage::{Watch, copy_sparse};
use crate::vm::blocking;
use crate::wiring::Lease;

impl Making {
    /// Copies the drives of the paused VM.
    pub(super) async fn copy_drives(&self, state: &VmState) -> Result<Vec<DriveFile>> {
        let (work, run_dir) = (self.place.work(), self.vm.run_dir().clone());
        let state = state.clone();
        let stop = Arc::clone(&self.stop);
        blocking(move || {
            let mut drives = Vec::new();
            for (drive, path) in state.spec.drives.iter().zip(&state.paths.drives) {
                let name = drive_name(path).ok_or_else(|| {
                    let message = format!("drive {} is at {path:?}", drive.drive_id);
                    Error::new(ErrorKind::Corrupt, message)
                })?;
                let from = Seen::find(&run_dir, &state, path)?;
                let to = work.join(DRIVES).join(name);
                copy_sparse(from.path(), &to, &|| stop.load(Ordering::Relaxed))?;
                if drive.read_only() {
                    share_with_jails(&to)?;
                }
                drives.push(DriveFile {
                    drive_id: drive.drive_id.clone(),
                    read_only: drive.read_only(),
                    path: path.clone(),
                    sum: FileSum {
                        size_bytes: 0,
                        sha256: String::new(),
                    },
                });
            }
            Ok(drives)
        })
        .await
    }

    /// Checksums and the manifest, while the VM runs on.
    pub(super) async fn describe(&self, captured: &Captured) -> Result<()> {
        let (place, kind, id) = (self.place.clone(), self.kind, self.id.clone());
        let (vm, stop) = (self.vm.id().clone(), Arc::clone(&self.stop));
        let (state, parent) = (captured.state.clone(), captured.parent.clone());
        let mut drives = captured.drives.clone();
        blocking(move || {
            let (mut quiet, stopped) = (|_| {}, || stop.load(Ordering::Relaxed));
            let mut work = Watch::new(&mut quiet, &stopped);
            let dir = place.work();
            let mut origin = host::Origin::here(&HostFacts::gather(&[]), state.firecracker);
            origin.state_format = host::state_format(&dir.join(STATE))?;
            let mut stamps = Stamps::default();
            for drive in &mut drives {
                let name = drive_name(&drive.path).unwrap_or_default();
                let file = dir.join(DRIVES).join(name);
                drive.sum = sum(&file, &mut work)?;
                stamps.set(&format!("drive {}", drive.drive_id), Stamp::of(&file)?);
            }
            let manifest = Manifest {
                id,
                vm,
                created_at: crate::teardown::now(),
                kind,
                origin,
                agent: state.agent,
                state: sum(&dir.join(STATE), &mut work)?,
                memory: sum(&place.memory_work(), &mut work)?,
                drives,
                vsock: state.paths.vsock.clone(),
                leases: leases_inside(&state),
                parent,
                spec: state.spec.clone(),
            };
            stamps.write(&dir)?;
            manifest.write(&dir.join(MANIFEST))?;
            sync_dir(&dir.join(DRIVES))?;
            sync_dir(&dir)
        })
        .await
    }
}

/// The leases, with the addresses that the guest has: one that was restored and never ran
/// has the old ones.
fn leases_inside(state: &VmState) -> Vec<Lease> {
    let inside = |lease: &Lease| {
        let mut lease = lease.clone();
        let pending = state.moves.iter().find(|it| it.iface_id == lease.iface_id);
        lease.ip = pending.map_or(lease.ip, |it| it.from);
        lease
    };
    state.leases.iter().map(inside).collect()
}

/// Flushes a file to the disk and computes its checksum.
fn sum(path: &Path, work: &mut Watch<'_>) -> Result<FileSum> {
    let file = File::open(path).map_err(|e| Error::io("reading", path, e))?;
    file.sync_all().map_err(|e| Error::io("writing", path, e))?;
    let size = file
        .metadata()
        .map_err(|e| Error::io("looking at", path, e))?
        .len();
    Ok(FileSum {
        size_bytes: size,
        sha256: sha256_of_file(path, work)?,
    })
}
