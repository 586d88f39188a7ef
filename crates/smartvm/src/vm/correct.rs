//! What is known of a live VM, where it may be wrong: whoever paused or resumed it, or swapped a
//! drive, may have died before that was written down. Its Firecracker knows.

use std::time::Duration;

use super::swap::users_file;
use crate::error::Result;
use crate::firecracker::Client;
use crate::firecracker::client::Request;
use crate::firecracker::model::{
    ConfiguredDrive, INSTANCE, Instance, InstanceState, VM_CONFIG, VmConfig,
};
use crate::ledger::Ledger;
use crate::rundir::{Lock, RunDir, State, VmState, file};
use crate::spec::Drive;

/// A Firecracker that doesn't answer so long stands still, or ends.
const PATIENCE: Duration = Duration::from_secs(1);

/// Corrects it; returns what was wrong. With `dry_run` nothing is changed.
pub(crate) fn correct(run_dir: &RunDir, _lock: &Lock, dry_run: bool) -> Result<Vec<String>> {
    let mut known = run_dir.state()?;
    if !matches!(known.state, State::Running | State::Paused) {
        return Ok(Vec::new());
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
        Ok((InstanceState::NotStarted, _)) => return Ok(Vec::new()),
        Err(e) => {
            // If it ends, its keeper sees to that.
            tracing::debug!("asking whether VM {} is {}: {e}", run_dir.id(), known.state);
            return Ok(Vec::new());
        }
    };
    let mut wrong = Vec::new();
    if is != known.state {
        wrong.push(format!("its state said {}, and it is {is}", known.state));
        known.state = is;
    }
    wrong.extend(correct_drives(run_dir, &mut known, drives)?);
    if !dry_run && !wrong.is_empty() {
        run_dir.write_state(&known)?;
    }
    Ok(wrong)
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
