//! What one operation leaves to the next, which saves it the making: who pauses a VM resumes it
//! soon.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::firecracker::Client;
use crate::rundir::{Known, Unlocked};

/// So long it is kept while nobody uses it, or twice as long: it takes four descriptors, and
/// a connection, of which Firecracker has room for ten.
const KEPT_FOR: Duration = Duration::from_secs(1);

/// Of so many VMs at most something is kept: a process often may have 1024 descriptors in all.
static ROOM: Semaphore = Semaphore::const_new(64);

/// What an operation leaves.
#[derive(Debug)]
pub(super) struct Left {
    /// A connection to Firecracker.
    pub(super) client: Client,
    /// The VM's lock.
    pub(super) lock: Unlocked,
    /// What is known of the VM, as long as nobody else changes it.
    pub(super) known: Known,
}

/// Room for what one operation leaves.
#[derive(Debug, Clone, Default)]
pub(super) struct Kept(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    left: Option<(Left, SemaphorePermit<'static>)>,
    /// How often something was left here.
    times: u64,
    /// Whether somebody sees to its end.
    watched: bool,
}

impl Kept {
    /// What was left here, if it is here still.
    pub(super) fn take(&self) -> Option<Left> {
        lock(&self.0).left.take().map(|(left, _room)| left)
    }

    /// Leaves something here, for a while, if there is room for it.
    pub(super) fn leave(&self, left: Left) {
        let Ok(room) = ROOM.try_acquire() else {
            return;
        };
        let mut inner = lock(&self.0);
        inner.left = Some((left, room));
        inner.times += 1;
        if !inner.watched {
            inner.watched = true;
            tokio::spawn(drop_when_unused(Arc::downgrade(&self.0)));
        }
    }
}

async fn drop_when_unused(kept: Weak<Mutex<Inner>>) {
    let mut seen = 0;
    loop {
        tokio::time::sleep(KEPT_FOR).await;
        let Some(kept) = kept.upgrade() else { return };
        let mut inner = lock(&kept);
        if inner.times == seen {
            inner.left = None;
            inner.watched = false;
            return;
        }
        seen = inner.times;
    }
}

/// What is behind it is whole at every moment, whoever panicked.
fn lock(kept: &Mutex<Inner>) -> MutexGuard<'_, Inner> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}
