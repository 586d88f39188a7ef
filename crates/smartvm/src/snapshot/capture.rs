//! The first part of a snapshot, with the VM's lock: pause, state and memory, drives, resume.
//!
//! Until its end the claim stands in the VM's ledger: if this process is killed, whoever looks
//! at the VM next gives it back, and lets the VM run on.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::create::Making;
use super::manifest::{DriveFile, Parent};
use super::options::Moment;
use super::place::STATE;
use super::refuse::refuse;
use super::window::Window;
use super::{interrupted, recover, usage};
use crate::error::{Error, ErrorKind, Result};
use crate::firecracker::model::snapshot as wire;
use crate::firecracker::model::{VmBody, VmState as Wire};
use crate::ledger::Ledger;
use crate::rundir::{Lock, Operation, RunDir, State, VmState, file};
use crate::spec::SnapshotType;
use crate::step::{Outcome, Owner, Step};
use crate::storage::lock::FileLock;
use crate::vm::{AGENT_PATIENCE, blocking, correct};

/// How long Firecracker may take to write the memory.
const WRITE_PATIENCE: Duration = Duration::from_secs(600);

/// What is on disk under hidden names once the VM runs on.
pub(super) struct Captured {
    /// The VM at that moment.
    pub(super) state: VmState,
    pub(super) drives: Vec<DriveFile>,
    /// What a diff builds on.
    pub(super) parent: Option<Parent>,
    pub(super) owner: Owner,
    pub(super) made_parent: bool,
    /// Whether its guest stood still and runs again.
    pub(super) woken: bool,
    /// Held while its maker lives.
    pub(super) _held: FileLock,
}

/// A place that is claimed.
struct Claimed {
    state: VmState,
    owner: Owner,
    made_parent: bool,
    claim: FileLock,
}

impl Making {
    /// Captures the VM at one moment.
    pub(super) async fn capture(&self) -> Result<Captured> {
        let agent = self.agent().await;
        let held = self.vm.begin(Operation::Snapshot).await?;
        let lock = Arc::new(held.into_lock());
        let run_dir = self.vm.run_dir().clone();
        let Claimed {
            mut state,
            owner,
            made_parent,
            claim,
        } = self.begin(&run_dir, &lock).await?;
        if agent.is_some() {
            state.agent = agent;
        }
        let ran = state.state == State::Running;
        let parent = state.base.take();
        match self.write(&mut state, ran).await {
            Ok(drives) => {
                let place = self.place.clone();
                blocking(move || {
                    super::recover::hand_over(&run_dir, &place)?;
                    drop(lock);
                    Ok(())
                })
                .await?;
                Ok(Captured {
                    parent: parent.filter(|_| self.kind == SnapshotType::Diff),
                    woken: ran && state.state == State::Running,
                    state,
                    drives,
                    owner,
                    made_parent,
                    _held: claim,
                })
            }
            Err(failure) => {
                state.base = None;
                let resumed = match ran {
                    true => self.switch(&mut state, State::Running).await.err(),
                    false => None,
                };
                let undone = blocking(move || {
                    let found = interrupted(&run_dir, &lock)?;
                    recover(&run_dir, &lock, &found)
                });
                let undone = undone.await.err();
                Err(failure.with_cleanup(resumed.into_iter().chain(undone)))
            }
        }
    }

    /// The newest version of the protocol that the guest's agent speaks, if it answers.
    async fn agent(&self) -> Option<u32> {
        if self.options.agent == Some(false) {
            return None;
        }
        let state = self.vm.state().ok()?;
        if state.agent.is_some() || state.state != State::Running {
            return state.agent;
        }
        let patience = match self.options.agent {
            Some(_) => Duration::from_secs(30),
            None => AGENT_PATIENCE,
        };
        self.vm.agent_version(patience).await
    }

    /// Refuses what can't be, then claims the place.
    async fn begin(&self, run_dir: &RunDir, lock: &Arc<Lock>) -> Result<Claimed> {
        let (run_dir, lock) = (run_dir.clone(), Arc::clone(lock));
        let (place, kind, shelf) = (self.place.clone(), self.kind, self.vm.shelf.clone());
        let (leave_paused, myself) = (self.options.leave_paused, self.as_parent());
        blocking(move || {
            let left = interrupted(&run_dir, &lock)?;
            recover(&run_dir, &lock, &left)?;
            for wrong in correct(&run_dir, &lock, false)? {
                tracing::warn!(vm = %run_dir.id(), "corrected: {wrong}");
            }
            let state = run_dir.state()?;
            let vm = run_dir.id().as_str();
            refuse(&state, kind, vm)?;
            let mut ledger = Ledger::open(&run_dir.file(file::LEDGER))?
                .ok_or_else(|| Error::new(ErrorKind::Corrupt, format!("VM {vm} has no ledger")))?;
            let made_parent = !place.parent().exists();
            let runtime_dir = run_dir.runtime_dir()?.path().to_owned();
            shelf.note(&place, made_parent)?;
            let step = Step::ClaimSnapshot {
                state: place.state().to_owned(),
                memory: place.memory().to_owned(),
                makes_parent: made_parent,
                resume: state.state == State::Running && !leave_paused,
                vm: vm.to_owned(),
                runtime_dir: runtime_dir.clone(),
            };
            let mut claim = None;
            let claimed = ledger.run(&step, |step| {
                claim = step.claim_snapshot()?;
                match &state.base {
                    Some(parent) if kind == SnapshotType::Diff => {
                        usage::add_child(parent, &myself)?;
                    }
                    _ => {}
                }
                Ok(Outcome::default())
            });
            let claim = claimed.and_then(|()| {
                claim.ok_or_else(|| Error::new(ErrorKind::Io, "the claim isn't held"))
            });
            match claim {
                Ok(claim) => Ok(Claimed {
                    owner: Owner::of(vm, &runtime_dir)?,
                    state,
                    made_parent,
                    claim,
                }),
                Err(e) => {
                    let number = ledger.entries().len() - 1;
                    // What is there belongs to somebody else: the refusal took nothing.
                    let undone = match e.kind() {
                        ErrorKind::WrongState => ledger.undo_one(number, |_| Ok(())),
                        _ => ledger.undo_one(number, |entry| entry.step.undo(None)),
                    };
                    Err(e.with_cleanup(undone.err()))
                }
            }
        })
        .await
    }

    async fn write(&self, state: &mut VmState, ran: bool) -> Result<Vec<DriveFile>> {
        self.tell(Moment::Claimed)?;
        match ran {
            true => self.switch(state, State::Paused).await?,
            false => self.vm.run_dir().write_state(state)?,
        }
        self.tell(Moment::Paused)?;
        self.have_written(state).await?;
        self.tell(Moment::Written)?;
        let drives = self.copy_drives(state).await?;
        self.tell(Moment::Copied)?;
        // From here on changes are tracked since this snapshot.
        state.base = Some(self.as_parent());
        match ran && !self.options.leave_paused {
            true => self.switch(state, State::Running).await?,
            false => self.vm.run_dir().write_state(state)?,
        }
        Ok(drives)
    }

    /// Has Firecracker write state and memory.
    async fn have_written(&self, state: &VmState) -> Result<()> {
        let files = [self.place.work().join(STATE), self.place.memory_work()];
        let mut client = self.vm.client();
        if !state.jailed() {
            let request = wire::create(&files[0], &files[1], self.kind)?;
            return client.send_within(&request, WRITE_PATIENCE).await.map(drop);
        }
        let (run_dir, jailed) = (self.vm.run_dir().clone(), state.clone());
        let window = blocking(move || Window::open(&run_dir, &jailed, files)).await?;
        let [state, memory] = window.ways();
        let request = wire::create(Path::new(state), Path::new(memory), self.kind)?;
        let written = client.send_within(&request, WRITE_PATIENCE).await;
        let closed = blocking(move || window.close()).await;
        match (written, closed) {
            (Ok(_), closed) => closed,
            (Err(e), closed) => Err(e.with_cleanup(closed.err())),
        }
    }

    /// Written before it is done: whoever finds it paused can resume it.
    async fn switch(&self, state: &mut VmState, to: State) -> Result<()> {
        let wire = match to {
            State::Paused => Wire::Paused,
            _ => Wire::Resumed,
        };
        let request = VmBody { state: wire }.request()?;
        if to == State::Paused {
            state.state = to;
            self.vm.run_dir().write_state(state)?;
        }
        self.vm.client().send_busy_polling(&request).await?;
        state.state = to;
        self.vm.run_dir().write_state(state)
    }
}
