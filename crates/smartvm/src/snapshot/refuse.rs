//! What can't be put into a snapshot, found before anything is touched.

use super::{Place, Snapshot, usage};
use crate::error::{Error, ErrorKind, Result};
use crate::firecracker::Version;
use crate::rundir::VmState;
use crate::spec::SnapshotType;

/// Before Firecracker 1.15, diffs of more memory than this are not to be trusted.
const MOST_DIFF_MIB: u64 = 3072;

/// Refuses a snapshot of this kind of this VM, where it can't be.
pub(super) fn refuse(state: &VmState, kind: SnapshotType, vm: &str) -> Result<()> {
    for drive in &state.spec.drives {
        if drive.socket.is_some() {
            let message = format!(
                "drive {} of VM {vm} is a vhost-user device: it can't be part of a snapshot",
                drive.drive_id
            );
            return Err(Error::new(ErrorKind::WrongState, message));
        }
    }
    let machine = &state.spec.machine_config;
    let jail = state.spec.jail.as_ref().filter(|_| state.jailed());
    let largest = jail.and_then(|jail| jail.resource_limits.as_ref()?.file_size_bytes);
    if largest.is_some_and(|most| most < machine.mem_size_mib << 20) {
        let message = format!(
            "VM {vm} may write no file as large as its memory: Firecracker would be killed"
        );
        return Err(Error::new(ErrorKind::WrongState, message)
            .hint("start it with a larger jail.resourceLimits.fileSizeBytes"));
    }
    if kind == SnapshotType::Full {
        return Ok(());
    }
    if machine.track_dirty_pages != Some(true) {
        let message = format!("VM {vm} doesn't track what changes, so no diff can be made");
        return Err(Error::new(ErrorKind::WrongState, message).hint(
            "make a full snapshot; or start it with machineConfig.trackDirtyPages, or restore \
             it with enableDiffSnapshots",
        ));
    }
    let none = |why: String| {
        let message = format!("VM {vm} has no snapshot that a diff could build on{why}");
        Error::new(ErrorKind::WrongState, message).hint("make a full snapshot first")
    };
    let base = state.base.as_ref().ok_or_else(|| none(String::new()))?;
    let place = Place::new(&base.snapshot_path, &base.mem_file_path)?;
    if usage::is_locked(&place.work())? {
        let message = format!("the last snapshot of VM {vm} isn't finished yet");
        return Err(Error::new(ErrorKind::WrongState, message)
            .at(place.state())
            .hint("wait for it, then make the diff that builds on it"));
    }
    let there = Snapshot::open(&place).is_ok_and(|it| it.manifest().id == base.id);
    if !there {
        let gone = format!(": {} is gone", place.state().display());
        return Err(none(gone));
    }
    let since = Version::new(1, 15, 0);
    if state.firecracker < since && machine.mem_size_mib > MOST_DIFF_MIB {
        let message = format!(
            "Firecracker {} makes wrong diffs of more than {MOST_DIFF_MIB} MiB of memory",
            state.firecracker
        );
        return Err(Error::new(ErrorKind::Host, message)
            .hint(format!("make a full snapshot, or use Firecracker {since}")));
    }
    Ok(())
}
