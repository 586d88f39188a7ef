//! Live VMs on which an operation was interrupted by the death of whoever was at it.

use std::time::Duration;

use super::gc::Finding;
use crate::error::Result;
use crate::firecracker::Client;
use crate::firecracker::client::Request;
use crate::firecracker::model::{
    ConfiguredDrive, INSTANCE, Instance, InstanceState, VM_CONFIG, VmConfig,
};
use crate::ledger::Ledger;
use crate::rundir::{Lock, RunDir, State, VmState, file};
use crate::snapshot;
use crate::spec::Drive;
use crate::vm::users_file;

/// A Firecracker that doesn't answer so long stands still, or ends.
const PATIENCE: Duration = Duration::from_secs(1);

/// Brings to its end what was interrupted, if anything was. The VM's lock is held, so that nobody
/// is just at it. With `dry_run` it only says what it would do.
pub(super) fn mend(run_dir: &RunDir, lock: &Lock, dry_run: bool) -> Result<Option<Finding>> {
    match remove_snapshot(run_dir, lock, dry_run)? {
        Some(finding) => Ok(Some(finding)),
        None => correct_state(run_dir, dry_run),
    }
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

/// Whoever paused or resumed it, or swapped a drive, may have died before that was written down:
/// Firecracker knows.
fn correct_state(run_dir: &RunDir, dry_run: bool) -> Result<Option<Finding>> {
    let mut known = run_dir.state()?;
    if !matches!(known.state, State::Running | State::Paused) {
        return Ok(None);
    }
    let asked = Client::blocking(known.api_socket(run_dir), async |mut client| {
        let instance: Instance = client.ask_within(&Request::get(INSTANCE), PATIENCE).await?;
        let config: VmConfig = client
            .ask_within(&Request::get(VM_CONFIG), PATIENCE)
            .await?;
        Ok((instance.state, config.drives))
    });
    let (is, drives) = match asked {
        Ok((InstanceState::Running, drives)) => (State::Running, drives),
        Ok((InstanceState::Paused, drives)) => (State::Paused, drives),
        Ok((InstanceState::NotStarted, _)) => return Ok(None),
        Err(e) => {
            // If it ends, its keeper sees to that.
            tracing::debug!("asking whether VM {} is {}: {e}", run_dir.id(), known.state);
            return Ok(None);
        }
    };
    let mut wrong = Vec::new();
    if is != known.state {
        wrong.push(format!("its state said {}, and it is {is}", known.state));
        known.state = is;
    }
    wrong.extend(correct_drives(run_dir, &mut known, drives)?);
    if wrong.is_empty() {
        return Ok(None);
    }
    if !dry_run {
        run_dir.write_state(&known)?;
    }
    let why = wrong.join("; ");
    Ok(Some(Finding::Corrected { why }))
}

/// Has it know the files that Firecracker has behind the drives; returns what was wrong.
fn correct_drives(
    run_dir: &RunDir,
    known: &mut VmState,
    drives: Vec<ConfiguredDrive>,
) -> Result<Vec<String>> {
    let root = known.root(run_dir);
    let mut wrong = Vec::new();
    for ConfiguredDrive {
        drive_id,
        path_on_host,
    } in drives
    {
        let of_this_id = |drive: &Drive| drive.drive_id == drive_id;
        let Some(index) = known.spec.drives.iter().position(of_this_id) else {
            continue;
        };
        let Some(seen) = path_on_host.filter(|seen| *seen != known.paths.drives[index]) else {
            continue;
        };
        let ledger = Ledger::open(&run_dir.file(file::LEDGER))?;
        let Some(file) = ledger.and_then(|ledger| users_file(&ledger, &root, &seen)) else {
            continue;
        };
        wrong.push(format!(
            "its drive {drive_id} has the file {}",
            file.display()
        ));
        known.paths.drives[index] = seen;
        known.spec.drives[index].path_on_host = Some(file);
    }
    Ok(wrong)
}
