//! Live VMs on which an operation was interrupted by the death of whoever was at it.

use super::gc::Finding;
use crate::error::Result;
use crate::rundir::{Lock, RunDir};
use crate::{snapshot, vm};

/// Brings to its end what was interrupted, if anything was. The VM's lock is held, so that nobody
/// is just at it. With `dry_run` it only says what it would do.
pub(super) fn mend(run_dir: &RunDir, lock: &Lock, dry_run: bool) -> Result<Option<Finding>> {
    if let Some(finding) = remove_snapshot(run_dir, lock, dry_run)? {
        return Ok(Some(finding));
    }
    let wrong = vm::correct(run_dir, lock, dry_run)?;
    Ok((!wrong.is_empty()).then(|| Finding::Corrected {
        why: wrong.join("; "),
    }))
}

/// A snapshot that was being made goes, and its VM runs on.
fn remove_snapshot(run_dir: &RunDir, lock: &Lock, dry_run: bool) -> Result<Option<Finding>> {
    let found = snapshot::interrupted(run_dir, lock)?;
    let Some(first) = found.first() else {
        return Ok(None);
    };
    let why = format!(
        "the making of snapshot {} was interrupted",
        first.place.state().display()
    );
    if !dry_run {
        snapshot::recover(run_dir, lock, &found)?;
    }
    Ok(Some(Finding::GivenBack { why }))
}
