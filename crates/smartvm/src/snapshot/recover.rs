//! After the death of whoever made a snapshot: what it left goes, and its VM runs on.

use super::{Place, window};
use crate::error::Result;
use crate::firecracker::Client;
use crate::firecracker::model::{VmBody, VmState as Wire};
use crate::ledger::Ledger;
use crate::rundir::{Lock, RunDir, State, file};
use crate::step::Step;

/// A snapshot whose making was interrupted.
pub(crate) struct Interrupted {
    number: usize,
    /// Its place, for people.
    pub(crate) place: Place,
    resume: bool,
}

/// The snapshots of this VM whose making was interrupted. Its lock is held, so that nobody is
/// just making one.
pub(crate) fn interrupted(run_dir: &RunDir, _lock: &Lock) -> Result<Vec<Interrupted>> {
    let Some(ledger) = Ledger::open(&run_dir.file(file::LEDGER))? else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for (number, entry) in ledger.entries().iter().enumerate() {
        if let Step::ClaimSnapshot {
            state,
            memory,
            resume,
            ..
        } = &entry.step
            && !entry.undone
        {
            found.push(Interrupted {
                number,
                place: Place::new(state, memory)?,
                resume: *resume,
            });
        }
    }
    Ok(found)
}

/// Gives back what they left, and lets the VM run on where it ran.
pub(crate) fn recover(run_dir: &RunDir, lock: &Lock, found: &[Interrupted]) -> Result<()> {
    let path = run_dir.file(file::LEDGER);
    let Some(mut ledger) = Ledger::open(&path)? else {
        return Ok(());
    };
    for one in found {
        ledger.undo_one(one.number, |entry| entry.step.undo(entry.outcome.as_ref()))?;
    }
    let root = run_dir.state()?.root(run_dir);
    if !found.is_empty() && root.is_jail() {
        window::shut(root.path())?;
    }
    if found.iter().any(|one| one.resume) {
        resume(run_dir, lock)?;
    }
    Ok(())
}

fn resume(run_dir: &RunDir, _lock: &Lock) -> Result<()> {
    let mut state = run_dir.state()?;
    if state.state != State::Paused {
        return Ok(());
    }
    let request = VmBody {
        state: Wire::Resumed,
    }
    .request()?;
    Client::blocking(state.api_socket(run_dir), async move |mut client| {
        client.send(&request).await
    })?;
    state.state = State::Running;
    run_dir.write_state(&state)
}

/// Ends the entry of a snapshot that needs its VM no more: it is its maker's from here on.
pub(super) fn hand_over(run_dir: &RunDir, place: &Place) -> Result<()> {
    let path = run_dir.file(file::LEDGER);
    let Some(mut ledger) = Ledger::open(&path)? else {
        return Ok(());
    };
    let last = ledger.entries().iter().rposition(|entry| {
        !entry.undone
            && matches!(&entry.step, Step::ClaimSnapshot { state, .. } if state == place.state())
    });
    match last {
        Some(number) => ledger.undo_one(number, |_| Ok(())),
        None => Ok(()),
    }
}
