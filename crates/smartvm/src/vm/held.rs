//! A VM held for one operation: its lock, and its state as it was when the lock was taken.

use std::fs::File;

use super::{LOCK_PATIENCE, MicroVm, blocking, gone, with_files};
use crate::durable::Remembered;
use crate::error::{Error, ErrorKind, Result};
use crate::rundir::{Lock, Operation, RunDir, StagedState, State, VmState};

/// Proof that an operation may work on a VM: nobody else does, and its state allows it.
#[derive(Debug)]
pub(crate) struct Held {
    run_dir: RunDir,
    lock: Lock,
    leads_to: Option<State>,
    /// What is known of the VM.
    pub(crate) state: Box<VmState>,
}

impl Held {
    /// Takes the lock, waiting at most [`LOCK_PATIENCE`] for whoever works on the VM.
    pub(super) fn take(run_dir: RunDir, operation: Operation) -> Result<Self> {
        let lock = run_dir.lock(operation.doing(), LOCK_PATIENCE);
        let lock = lock.map_err(|e| ended(&run_dir, e))?;
        Self::locked(run_dir, lock, operation)
    }

    /// The same on a thread that mustn't wait: `None` where it would have to, for whoever works
    /// on the VM, or for a disk.
    fn take_at_once(
        run_dir: &RunDir,
        operation: Operation,
        remembered: Option<&Remembered<VmState>>,
    ) -> Result<Option<Self>> {
        if !run_dir.in_memory() {
            return Ok(None);
        }
        let lock = run_dir.lock_free(operation.doing());
        let lock = lock.map_err(|e| ended(run_dir, e))?;
        let Some(lock) = lock else { return Ok(None) };
        let state = match remembered {
            Some(remembered) => run_dir.state_again(remembered)?,
            None => run_dir.state()?,
        };
        Self::holding(run_dir.clone(), lock, Box::new(state), operation).map(Some)
    }

    fn locked(run_dir: RunDir, lock: Lock, operation: Operation) -> Result<Self> {
        let state = Box::new(run_dir.state()?);
        Self::holding(run_dir, lock, state, operation)
    }

    fn holding(
        run_dir: RunDir,
        lock: Lock,
        state: Box<VmState>,
        operation: Operation,
    ) -> Result<Self> {
        operation.require(state.state, run_dir.id().as_str())?;
        Ok(Self {
            run_dir,
            lock,
            leads_to: operation.leads_to(),
            state,
        })
    }

    /// Writes the state that the operation leads to, with whatever was changed in
    /// [`Held::state`], and lets go.
    pub(crate) async fn done(self) -> Result<()> {
        let run_dir = self.run_dir.clone();
        with_files(&run_dir, move || self.record().map(drop)).await
    }

    /// The same, but keeps the lock; blocks.
    pub(super) fn record(self) -> Result<(Lock, Box<VmState>)> {
        let (_file, held) = self.prepared()?.publish()?;
        Ok((held.lock, held.state))
    }

    /// The first half of [`Held::done`], while the operation goes on: writes that state where
    /// nobody sees it.
    pub(super) async fn prepare(self) -> Result<Prepared> {
        // What is waited for meanwhile has to be asked first.
        tokio::task::yield_now().await;
        let run_dir = self.run_dir.clone();
        with_files(&run_dir, move || self.prepared()).await
    }

    fn prepared(mut self) -> Result<Prepared> {
        if let Some(state) = self.leads_to {
            self.state.state = state;
        }
        let staged = self.run_dir.stage_state(&self.state)?;
        Ok(Prepared { held: self, staged })
    }

    /// Has the operation lead to another state than it does by itself.
    pub(super) fn leading_to(mut self, state: State) -> Self {
        self.leads_to = Some(state);
        self
    }

    /// The lock alone; blocks nothing, writes nothing.
    pub(crate) fn into_lock(self) -> Lock {
        self.lock
    }
}

/// A VM held for an operation that has only to be recorded. Dropping it lets go without.
#[derive(Debug)]
pub(super) struct Prepared {
    held: Held,
    staged: StagedState,
}

impl Prepared {
    /// The second half of [`Held::done`]; returns the VM's state, and its file.
    pub(super) async fn done(self) -> Result<(File, Box<VmState>)> {
        let run_dir = self.held.run_dir.clone();
        with_files(&run_dir, move || {
            let (file, held) = self.publish()?;
            Ok((file, held.state))
        })
        .await
    }

    fn publish(self) -> Result<(File, Held)> {
        Ok((self.staged.publish()?, self.held))
    }
}

impl MicroVm {
    /// Begins an operation: the lock is held and the state allows it. Dropping what this
    /// returns lets go without a change; [`Held::done`] records what the VM is then.
    pub(crate) async fn begin(&self, operation: Operation) -> Result<Held> {
        self.begin_again(operation, None).await
    }

    /// The same, with what the last operation remembers of the state.
    pub(super) async fn begin_again(
        &self,
        operation: Operation,
        remembered: Option<&Remembered<VmState>>,
    ) -> Result<Held> {
        if let Some(held) = Held::take_at_once(&self.run_dir, operation, remembered)? {
            return Ok(held);
        }
        let run_dir = self.run_dir.clone();
        blocking(move || Held::take(run_dir, operation)).await
    }
}

/// What to say if the lock can't be taken because the VM has ended.
fn ended(run_dir: &RunDir, cause: Error) -> Error {
    match cause.kind() {
        ErrorKind::NotFound => gone(run_dir.id()),
        _ => cause,
    }
}
