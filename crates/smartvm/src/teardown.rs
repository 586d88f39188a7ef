//! The only way in which a VM's things are given back: its ledger played backwards, by
//! whichever process does it.

use std::fs::File;
use std::time::SystemTime;

use serde::Serialize;

use crate::durable;
use crate::error::{Error, Result};
use crate::firecracker::exit::{self, Reason};
use crate::keeper::ring;
use crate::ledger::{Entry, Ledger};
use crate::rundir::{Ended, Lock, RunDir, State, file, timeline};

const STOP_FORMAT: u32 = 1;
/// What the VM's lock is taken for.
pub(crate) const DOING: &str = "cleaning up after";

/// That somebody asked a VM to end: tells an end that was asked for from one that wasn't. It says
/// so by being there; keepers of earlier versions read it, too.
#[derive(Debug, Serialize)]
pub struct StopRequest {
    /// When (RFC 3339).
    pub at: String,
}

impl StopRequest {
    /// Leaves the request in the run dir, before anything ends the VM.
    pub fn write(run_dir: &RunDir) -> Result<()> {
        let path = run_dir.file(file::STOP_REQUEST);
        // A restart of the host ends the VM as well.
        durable::write_until_restart(&path, STOP_FORMAT, &Self { at: now() }).or_else(|e| {
            // A full disk has room for an empty file still, which says the same.
            File::create(path).map(drop).map_err(|_| e)
        })
    }

    /// Whether there is one.
    pub fn was_left(run_dir: &RunDir) -> bool {
        run_dir.file(file::STOP_REQUEST).exists()
    }
}

/// Gives back everything that the VM holds, keeps its record, and removes its run dir. The
/// lock proves that nobody else works on it.
///
/// What could not be given back is in the record's `cleanup`; then the run dir stays, its
/// state `failed`, and the next `gc` tries again.
///
/// # Errors
/// If the ledger can't be read: nothing is touched then, since what is held isn't known.
pub fn tear_down(
    run_dir: &RunDir,
    _lock: &Lock,
    reason: Reason,
    vmm: Option<exit::Ended>,
) -> Result<Ended> {
    let ledger = Ledger::open(&run_dir.file(file::LEDGER))?;
    let moments = timeline::read(&run_dir.file(file::TIMELINE)).unwrap_or_default();
    let state = run_dir.state_since(moments.last()).ok();
    let failures = ledger.map_or_else(Vec::new, |ledger| undo(ledger, run_dir));
    let failed = reason.is_failure() || !failures.is_empty();
    let text = |name: &str, most: usize| {
        let tail = ring::tail(&run_dir.file(name), most).unwrap_or_default();
        String::from_utf8_lossy(&tail).into_owned()
    };
    let ended_at = now();
    let came_to = if failed {
        State::Failed
    } else {
        State::Stopped
    };
    let ended = Ended {
        id: run_dir.id().clone(),
        state: came_to,
        reason,
        vmm,
        created_at: state
            .as_ref()
            .map(|s| s.created_at.clone())
            .unwrap_or_default(),
        timeline: timeline::for_record(moments, came_to, &ended_at),
        ended_at,
        labels: state
            .as_ref()
            .map(|s| s.spec.labels.clone())
            .unwrap_or_default(),
        console: text(file::CONSOLE, 16 << 10),
        vmm_log: text(file::VMM_LOG, 8 << 10),
        cleanup: failures.iter().map(Error::to_string).collect(),
    };
    // Teardown works on a full disk: the record is worth less than what is given back, which may
    // make room for it.
    let keep = || run_dir.records().keep(&ended);
    let kept = keep();
    if failures.is_empty() {
        run_dir.remove()?;
    } else if let Some(mut state) = state {
        state.state = State::Failed;
        if let Err(e) = run_dir.write_state(&state) {
            tracing::warn!(vm = %run_dir.id(), "marking it as failed: {e}");
        }
    }
    if let Err(e) = kept.or_else(|_| keep()) {
        tracing::warn!(vm = %run_dir.id(), "keeping the record: {e}");
    }
    Ok(ended)
}

/// Undoes all steps; what is only in the run dir, which goes as a whole, only if that has to stay.
fn undo(mut ledger: Ledger, run_dir: &RunDir) -> Vec<Error> {
    let undo = |entry: &Entry| entry.step.undo(entry.outcome.as_ref());
    let goes_along = |entry: &Entry| entry.step.is_only_in(run_dir.path());
    let mut failures = ledger.undo_some(|_, entry| !goes_along(entry), undo);
    if !failures.is_empty() {
        failures.extend(ledger.undo_some(|_, entry| goes_along(entry), undo));
    }
    failures
}

/// This moment, as RFC 3339 in UTC to the millisecond.
pub(crate) fn now() -> String {
    humantime::format_rfc3339_millis(SystemTime::now()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rundir::RuntimeDir;
    use crate::step::{Outcome, Step};

    #[test]
    fn where_the_run_dir_has_to_stay_what_is_in_it_is_given_back_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        std::fs::create_dir_all(outside.join("somebody's")).unwrap();
        let runtime = RuntimeDir::open(&dir.path().join("run")).unwrap();
        let (run_dir, lock) = runtime.create(&"a".parse().unwrap()).unwrap();
        let link = run_dir.file(file::KERNEL);
        std::os::unix::fs::symlink("/k", &link).unwrap();
        let mut ledger = Ledger::create(&run_dir.file(file::LEDGER)).unwrap();
        for step in [
            Step::MakeDir {
                path: outside.clone(),
            },
            Step::Link {
                path: link.clone(),
                target: "/k".into(),
            },
        ] {
            ledger.run(&step, |_| Ok(Outcome::default())).unwrap();
        }
        let tear_down = || tear_down(&run_dir, &lock, Reason::Killed, None).unwrap();
        let ended = tear_down();
        assert_eq!((ended.state, ended.cleanup.len()), (State::Failed, 1));
        assert!(link.symlink_metadata().is_err());
        assert!(run_dir.path().exists());
        std::fs::remove_dir(outside.join("somebody's")).unwrap();
        assert_eq!(tear_down().cleanup, [""; 0]);
        assert!(!outside.exists() && !run_dir.path().exists());
    }
}
