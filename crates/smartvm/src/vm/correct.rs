//! What is known of a live VM, where it may be wrong: whoever paused or resumed it, swapped a
//! drive or set its metadata may have died before that was written down. Its Firecracker knows.

use std::time::Duration;

use serde_json::{Value, json};

use super::swap::users_file;
use crate::error::Result;
use crate::firecracker::Client;
use crate::firecracker::client::Request;
use crate::firecracker::model::{
    ConfiguredDrive, INSTANCE, Instance, InstanceState, METADATA, VM_CONFIG, VmConfig,
};
use crate::ledger::Ledger;
use crate::rundir::{Lock, RunDir, State, VmState, file};
use crate::spec::Drive;

/// A Firecracker that doesn't answer so long stands still, or ends.
const PATIENCE: Duration = Duration::from_secs(1);

/// A VM as its Firecracker has it.
struct Actual {
    state: InstanceState,
    drives: Vec<ConfiguredDrive>,
    /// Of a VM that has such a service.
    metadata: Option<Value>,
}

impl Actual {
    async fn ask(mut client: Client, has_metadata: bool) -> Result<Self> {
        let instance: Instance = client.ask_within(&Request::get(INSTANCE), PATIENCE).await?;
        let config = Request::get(VM_CONFIG);
        let config: VmConfig = client.ask_within(&config, PATIENCE).await?;
        let mut metadata = None;
        if has_metadata {
            let ask = Request::get(METADATA);
            metadata = Some(client.ask_within(&ask, PATIENCE).await?);
        }
        Ok(Self {
            state: instance.state,
            drives: config.drives,
            metadata,
        })
    }
}

/// Corrects it; returns what was wrong. With `dry_run` nothing is changed.
pub(crate) fn correct(run_dir: &RunDir, _lock: &Lock, dry_run: bool) -> Result<Vec<String>> {
    let mut known = run_dir.state()?;
    if !matches!(known.state, State::Running | State::Paused) {
        return Ok(Vec::new());
    }
    let has_metadata = known.spec.mmds.is_some();
    let asked = Client::blocking(known.api_socket(run_dir), async move |client| {
        Actual::ask(client, has_metadata).await
    });
    let actual = match asked {
        Ok(actual) => actual,
        Err(e) => {
            // If it ends, its keeper sees to that.
            tracing::debug!("asking whether VM {} is {}: {e}", run_dir.id(), known.state);
            return Ok(Vec::new());
        }
    };
    let is = match actual.state {
        InstanceState::Running => State::Running,
        InstanceState::Paused => State::Paused,
        InstanceState::NotStarted => return Ok(Vec::new()),
    };
    let mut wrong = Vec::new();
    if is != known.state {
        wrong.push(format!("its state said {}, and it is {is}", known.state));
        known.state = is;
    }
    wrong.extend(correct_drives(run_dir, &mut known, actual.drives)?);
    let nothing = json!({});
    if let Some(metadata) = actual.metadata
        && metadata != *known.spec.metadata.as_ref().unwrap_or(&nothing)
    {
        // What it is may be a secret.
        wrong.push("its metadata is another than its state said".to_owned());
        known.spec.metadata = Some(metadata);
    }
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
