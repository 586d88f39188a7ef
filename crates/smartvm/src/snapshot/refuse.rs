//! What can't be put into a snapshot, found before anything is touched.

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
    if kind == SnapshotType::Full {
        return Ok(());
    }
    let machine = &state.spec.machine_config;
    if machine.track_dirty_pages != Some(true) {
        let message = format!("VM {vm} doesn't track what changes, so no diff can be made");
        return Err(Error::new(ErrorKind::WrongState, message).hint(
            "make a full snapshot; or start it with machineConfig.trackDirtyPages, or restore \
             it with enableDiffSnapshots",
        ));
    }
    if state.base.is_none() {
        let message = format!("VM {vm} has no snapshot that a diff could build on");
        return Err(Error::new(ErrorKind::WrongState, message).hint("make a full snapshot first"));
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
