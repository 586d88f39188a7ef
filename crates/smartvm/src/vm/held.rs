//! A VM held for one operation: its lock, and its state as it was when the lock was taken.

use super::kept::Left;
use super::{LOCK_PATIENCE, MicroVm, blocking, gone, with_files};
use crate::error::{Error, ErrorKind, Result};
use crate::firecracker::Client;
use crate::rundir::{Known, Lock, Operation, RunDir, State, VmState};

/// Proof that an operation may work on a VM: nobody else does, and its state allows it.
#[derive(Debug)]
pub(crate) struct Held {
    run_dir: RunDir,
    lock: Lock,
    leads_to: Option<State>,
    known: Known,
}

impl Held {
    /// Takes the lock, waiting at most [`LOCK_PATIENCE`] for whoever works on the VM.
    pub(super) fn take(run_dir: RunDir, operation: Operation) -> Result<Self> {
        let lock = run_dir.lock(operation.holds_for(), LOCK_PATIENCE);
        let lock = lock.map_err(|e| ended(&run_dir, e))?;
        let known = Known::read(&run_dir)?;
        Self::holding(run_dir, lock, known, operation)
    }

    /// The same on a thread that mustn't wait: `None` where it would have to, for whoever works
    /// on the VM, or for a disk.
    fn take_at_once(run_dir: &RunDir, operation: Operation) -> Result<Option<Self>> {
        if !run_dir.in_memory() {
            return Ok(None);
        }
        let lock = run_dir.lock_free(operation.holds_for());
        let lock = lock.map_err(|e| ended(run_dir, e))?;
        let Some(lock) = lock else { return Ok(None) };
        let known = Known::read(run_dir)?;
        Self::holding(run_dir.clone(), lock, known, operation).map(Some)
    }

    /// Takes it with what the last operation left; `None` if another one came between, or is
    /// under way. Returns the connection to Firecracker, too.
    fn take_again(
        run_dir: RunDir,
        left: Left,
        operation: Operation,
    ) -> Result<Option<(Self, Client)>> {
        let Some(lock) = left.lock.try_lock() else {
            return Ok(None);
        };
        if !left.known.is_current() {
            return Ok(None);
        }
        let held = Self::holding(run_dir, lock, left.known, operation)?;
        Ok(Some((held, left.client)))
    }

    fn holding(run_dir: RunDir, lock: Lock, known: Known, operation: Operation) -> Result<Self> {
        operation.require(known.state().state, run_dir.id().as_str())?;
        Ok(Self {
            run_dir,
            lock,
            leads_to: operation.leads_to(),
            known,
        })
    }

    /// The VM's directory.
    pub(super) fn run_dir(&self) -> &RunDir {
        &self.run_dir
    }

    /// What is known of the VM.
    pub(crate) fn state(&self) -> &VmState {
        self.known.state()
    }

    /// The same, to change something of it.
    pub(super) fn change(&mut self) -> &mut VmState {
        self.known.change()
    }

    /// Forgets what its guest had to make of its addresses: it did, or can't.
    pub(super) fn forget_moves(&mut self) {
        if !self.state().moves.is_empty() {
            self.change().moves.clear();
        }
    }

    /// Has the operation lead to another state than it does by itself.
    pub(super) fn leading_to(mut self, state: State) -> Self {
        self.leads_to = Some(state);
        self
    }

    /// Writes the state that the operation leads to, and what was changed; blocks.
    pub(super) fn record(&mut self) -> Result<()> {
        let leads_to = self.leads_to.unwrap_or(self.state().state);
        self.known.come_to(&self.run_dir, leads_to)
    }

    /// The same without blocking; then lets go.
    pub(crate) async fn done(self) -> Result<()> {
        self.recorded().await?.1
    }

    /// The same, but holds on, also when it can't be written.
    pub(super) async fn recorded(mut self) -> Result<(Self, Result<()>)> {
        let run_dir = self.run_dir.clone();
        with_files(&run_dir, move || {
            let recorded = self.record();
            Ok((self, recorded))
        })
        .await
    }

    /// Lets go, with what saves time to another operation that follows soon; `None` if nothing
    /// can be left.
    pub(super) fn leave(self, client: Client) -> Option<Left> {
        let Self { lock, known, .. } = self;
        Some(Left {
            client,
            lock: lock.unlock()?,
            known,
        })
    }

    /// The lock alone; writes nothing.
    pub(crate) fn into_lock(self) -> Lock {
        self.lock
    }
}

impl MicroVm {
    /// Begins an operation: the lock is held and the state allows it. Dropping what this
    /// returns lets go without a change; [`Held::done`] records what the VM is then.
    pub(crate) async fn begin(&self, operation: Operation) -> Result<Held> {
        // Taken again, the lock would tell this operation's work.
        drop(self.kept.take());
        if let Some(held) = Held::take_at_once(&self.run_dir, operation)? {
            return Ok(held);
        }
        let run_dir = self.run_dir.clone();
        blocking(move || Held::take(run_dir, operation)).await
    }

    /// The same with what the last operation left. Returns a client of its Firecracker, too.
    pub(super) async fn begin_again(&self, operation: Operation) -> Result<(Held, Client)> {
        if let Some(left) = self.kept.take() {
            let run_dir = self.run_dir.clone();
            let again = move || Held::take_again(run_dir, left, operation);
            if let Some(again) = with_files(&self.run_dir, again).await? {
                return Ok(again);
            }
        }
        let held = self.begin(operation).await?;
        let client = Client::over(held.state().api_socket(&self.run_dir));
        Ok((held, client))
    }
}

/// What to say if the lock can't be taken because the VM has ended.
fn ended(run_dir: &RunDir, cause: Error) -> Error {
    match cause.kind() {
        ErrorKind::NotFound => gone(run_dir.id()),
        _ => cause,
    }
}
