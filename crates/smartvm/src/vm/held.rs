//! A VM held for one operation: its lock, and its state as it was when the lock was taken.

use super::{LOCK_PATIENCE, MicroVm, blocking, gone};
use crate::error::{ErrorKind, Result};
use crate::rundir::{Lock, Operation, RunDir, State, VmState};

/// Proof that an operation may work on a VM: nobody else does, and its state allows it.
#[derive(Debug)]
pub(crate) struct Held {
    run_dir: RunDir,
    lock: Lock,
    operation: Operation,
    /// What is known of the VM.
    pub(crate) state: VmState,
}

impl Held {
    /// Takes the lock, waiting at most [`LOCK_PATIENCE`] for whoever works on the VM.
    pub(super) fn take(run_dir: RunDir, operation: Operation) -> Result<Self> {
        let lock = run_dir.lock(operation.doing(), LOCK_PATIENCE);
        let lock = lock.map_err(|e| match e.kind() {
            ErrorKind::NotFound => gone(run_dir.id()),
            _ => e,
        })?;
        let state = run_dir.state()?;
        operation.require(state.state, run_dir.id().as_str())?;
        Ok(Self {
            run_dir,
            lock,
            operation,
            state,
        })
    }

    /// Writes the state that the operation leads to, with whatever was changed in
    /// [`Held::state`], and lets go.
    pub(crate) async fn done(self) -> Result<()> {
        blocking(move || self.record().map(drop)).await
    }

    /// The same, but keeps the lock; blocks.
    pub(super) fn record(mut self) -> Result<(Lock, VmState)> {
        if let Some(state) = self.operation.leads_to() {
            self.state.state = state;
        }
        self.run_dir.write_state(&self.state)?;
        Ok((self.lock, self.state))
    }

    /// The lock alone; blocks nothing, writes nothing.
    pub(crate) fn into_lock(self) -> Lock {
        self.lock
    }
}

impl MicroVm {
    /// Begins an operation: the lock is held and the state allows it. Dropping what this
    /// returns lets go without a change; [`Held::done`] records what the VM is then.
    pub(crate) async fn begin(&self, operation: Operation) -> Result<Held> {
        let run_dir = self.run_dir.clone();
        blocking(move || Held::take(run_dir, operation)).await
    }

    /// An operation that only records the state that it leads to.
    pub(super) async fn change(&self, operation: Operation, state: State) -> Result<()> {
        let run_dir = self.run_dir.clone();
        blocking(move || {
            let mut held = Held::take(run_dir, operation)?;
            held.state.state = state;
            if state == State::Running {
                // What was to be done when it runs is done.
                held.state.moves.clear();
            }
            held.run_dir.write_state(&held.state)
        })
        .await
    }
}
