//! Processes that this one started and that outlive their reason to be known: reaped now and
//! then, so that a long-lived owner collects no zombies.

use std::process::Child;
use std::sync::{Mutex, MutexGuard, PoisonError};

static CHILDREN: Mutex<Vec<Child>> = Mutex::new(Vec::new());

/// Lets go of one, which may live on.
pub(crate) fn keep(child: Child) {
    children().push(child);
}

/// Reaps those that have ended.
pub(crate) fn reap() {
    children().retain_mut(|child| matches!(child.try_wait(), Ok(None)));
}

/// The lock is only poisoned by a panic between two lines of these.
fn children() -> MutexGuard<'static, Vec<Child>> {
    CHILDREN.lock().unwrap_or_else(PoisonError::into_inner)
}
