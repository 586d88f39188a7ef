//! Making a snapshot: pause, state and memory, drives, resume, checksums, names.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::manifest::Parent;
use super::options::{Moment, SnapshotOptions};
use super::place::{Place, STATE};
use super::refuse::refuse;
use super::{Snapshot, claim, interrupted, recover};
use crate::error::{Error, ErrorKind, Result};
use crate::firecracker::model::snapshot as wire;
use crate::firecracker::model::{VmBody, VmState as Wire};
use crate::ledger::Ledger;
use crate::rundir::{Lock, Operation, RunDir, State, VmState, file};
use crate::spec::{SnapshotCreateParams, SnapshotType};
use crate::step::Step;
use crate::validate::validate_snapshot_create;
use crate::vm::{AGENT_PATIENCE, CancelOnDrop, MicroVm, blocking};

/// How long Firecracker may take to write the memory.
const WRITE_PATIENCE: Duration = Duration::from_secs(600);

fn cancelled() -> Error {
    Error::new(ErrorKind::Cancelled, "the snapshot was cancelled")
}

impl MicroVm {
    /// Makes a snapshot of it, at the paths given. A running VM is paused for it. If anything
    /// fails, or this future is dropped, what was made is removed and the VM runs on.
    ///
    /// # Errors
    /// [`ErrorKind::WrongState`] for a VM that neither runs nor is paused, files that are there
    /// already, and a diff without something to build on.
    pub async fn snapshot(
        &self,
        params: &SnapshotCreateParams,
        options: &SnapshotOptions,
    ) -> Result<Snapshot> {
        validate_snapshot_create(params).map_err(Error::from)?;
        let state = self.state()?;
        // What lies in a jail, and what was leased, is not part of a snapshot yet.
        if state.root.is_some() || !state.leases.is_empty() {
            let how = match state.root {
                Some(_) => "jailed",
                None => "connected to the network",
            };
            return Err(Error::new(
                ErrorKind::WrongState,
                format!("making a snapshot of VM {}: it is {how}", self.id()),
            )
            .hint("run it without a jail, with a TAP device of your own (hostDevName)"));
        }
        let stop = Arc::new(AtomicBool::new(false));
        let _guard = CancelOnDrop(Arc::clone(&stop));
        let making = Making {
            vm: Self::existing(
                self.run_dir().clone(),
                self.keeper_executable().to_owned(),
                self.network.clone(),
            ),
            place: Place::new(&params.snapshot_path, &params.mem_file_path)?,
            kind: params.snapshot_type.unwrap_or_default(),
            options: options.clone(),
            stop,
        };
        // A task of its own: if this future is dropped, that one still cleans up.
        match tokio::spawn(making.run()).await {
            Ok(done) => done,
            Err(e) => Err(Error::new(ErrorKind::Io, "making a snapshot failed").because(e)),
        }
    }
}

/// A snapshot in the making.
pub(super) struct Making {
    pub(super) vm: MicroVm,
    pub(super) place: Place,
    pub(super) kind: SnapshotType,
    options: SnapshotOptions,
    pub(super) stop: Arc<AtomicBool>,
}

impl Making {
    async fn run(self) -> Result<Snapshot> {
        let agent = self.agent().await;
        let held = self.vm.begin(Operation::Snapshot).await?;
        let lock = Arc::new(held.into_lock());
        let run_dir = self.vm.run_dir().clone();
        let mut state = self.begin(&run_dir, &lock).await?;
        if agent.is_some() {
            state.agent = agent;
        }
        let ran = state.state == State::Running;
        let made = self.make(&mut state, ran).await;
        let (place, resume) = (self.place.clone(), ran && !self.options.leave_paused);
        match made {
            Ok(()) => {
                blocking(move || {
                    super::recover::keep(&run_dir, &place)?;
                    drop(lock);
                    Snapshot::open(&place)
                })
                .await
            }
            Err(failure) => {
                let resumed = match ran && (resume || state.state == State::Paused) {
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
    async fn begin(&self, run_dir: &RunDir, lock: &Arc<Lock>) -> Result<VmState> {
        let (run_dir, lock) = (run_dir.clone(), Arc::clone(lock));
        let (place, kind) = (self.place.clone(), self.kind);
        let leave_paused = self.options.leave_paused;
        blocking(move || {
            let left = interrupted(&run_dir, &lock)?;
            recover(&run_dir, &lock, &left)?;
            let state = run_dir.state()?;
            let vm = run_dir.id().as_str();
            refuse(&state, kind, vm)?;
            let mut ledger = Ledger::open(&run_dir.file(file::LEDGER))?
                .ok_or_else(|| Error::new(ErrorKind::Corrupt, format!("VM {vm} has no ledger")))?;
            let makes_parent = !place.parent().exists();
            let step = Step::ClaimSnapshot {
                state: place.state().to_owned(),
                memory: place.memory().to_owned(),
                makes_parent,
                resume: state.state == State::Running && !leave_paused,
                vm: vm.to_owned(),
                runtime_dir: run_dir.runtime_dir()?.path().to_owned(),
            };
            let claimed = ledger.run(&step, |step| step.claim_snapshot());
            if let Err(e) = claimed {
                let number = ledger.entries().len() - 1;
                // What is there belongs to somebody else: the refusal took nothing.
                let undone = match e.kind() {
                    ErrorKind::WrongState => ledger.undo_one(number, |_| Ok(())),
                    _ => ledger.undo_one(number, |entry| entry.step.undo(None)),
                };
                return Err(e.with_cleanup(undone.err()));
            }
            Ok(state)
        })
        .await
    }

    async fn make(&self, state: &mut VmState, ran: bool) -> Result<()> {
        self.tell(Moment::Claimed)?;
        let parent = state.base.take();
        if ran {
            self.switch(state, State::Paused).await?;
        } else {
            self.vm.run_dir().write_state(state)?;
        }
        self.tell(Moment::Paused)?;
        let request = wire::create(
            &self.place.work().join(STATE),
            &self.place.memory_work(),
            self.kind,
        )?;
        let mut client = self.vm.client();
        client.send_within(&request, WRITE_PATIENCE).await?;
        self.tell(Moment::Written)?;
        let drives = self.copy_drives(state).await?;
        self.tell(Moment::Copied)?;
        if ran && !self.options.leave_paused {
            self.switch(state, State::Running).await?;
            if state.agent.is_some() {
                // The snapshot doesn't depend on it.
                if let Err(e) = self.vm.wake_guest().await {
                    tracing::warn!(vm = %self.vm.id(), "after the pause: {e}");
                }
            }
        }
        self.tell(Moment::Resumed)?;
        let manifest = self.describe(state, drives, parent).await?;
        self.tell(Moment::Whole)?;
        let base = Parent {
            id: manifest.id,
            snapshot_path: self.place.state().to_owned(),
            mem_file_path: self.place.memory().to_owned(),
        };
        let place = self.place.clone();
        blocking(move || claim::publish(&place)).await?;
        state.base = Some(base);
        self.vm.run_dir().write_state(state)?;
        self.tell(Moment::Published)
    }

    fn tell(&self, moment: Moment) -> Result<()> {
        let stopped = self.stop.load(Ordering::Relaxed);
        let told = self.options.watch.as_ref().map(|watch| watch(moment));
        // Once it is published it is there to stay.
        match (stopped, told) {
            _ if moment == Moment::Published => Ok(()),
            (true, _) | (_, Some(ControlFlow::Break(()))) => Err(cancelled()),
            _ => Ok(()),
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
        self.vm.client().send(&request).await?;
        state.state = to;
        self.vm.run_dir().write_state(state)
    }
}
