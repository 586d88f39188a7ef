//! Live VMs on which an operation was interrupted by the death of whoever was at it.

use std::time::Duration;

use super::gc::Finding;
use crate::error::Result;
use crate::firecracker::Client;
use crate::firecracker::client::Request;
use crate::firecracker::model::{INSTANCE, Instance, InstanceState};
use crate::rundir::{Lock, RunDir, State};
use crate::snapshot;

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

/// Whoever paused or resumed it may have died before that was written down: Firecracker knows.
fn correct_state(run_dir: &RunDir, dry_run: bool) -> Result<Option<Finding>> {
    let mut known = run_dir.state()?;
    if !matches!(known.state, State::Running | State::Paused) {
        return Ok(None);
    }
    let instance = Client::blocking(known.api_socket(run_dir), async |mut client| {
        let ask = Request::get(INSTANCE);
        client.ask_within::<Instance>(&ask, PATIENCE).await
    });
    let is = match instance.map(|instance| instance.state) {
        Ok(InstanceState::Running) => State::Running,
        Ok(InstanceState::Paused) => State::Paused,
        Ok(InstanceState::NotStarted) => return Ok(None),
        Err(e) => {
            // If it ends, its keeper sees to that.
            tracing::debug!("asking whether VM {} is {}: {e}", run_dir.id(), known.state);
            return Ok(None);
        }
    };
    if is == known.state {
        return Ok(None);
    }
    let why = format!("its state said {}, and it is {is}", known.state);
    if !dry_run {
        known.state = is;
        run_dir.write_state(&known)?;
    }
    Ok(Some(Finding::Corrected { why }))
}
