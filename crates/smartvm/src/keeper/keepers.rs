//! Where the keepers of a program's VMs come from.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use super::{Link, Starting};
use crate::error::Result;

/// From so many VMs on, a keeper waits for the next one: a program that starts a second VM
/// starts a third, as a rule.
const MANY: u32 = 2;

/// Keepers of one executable. One waits, its program loaded, for the next VM of a program that
/// starts many; it ends with the last clone of this, as with the program.
#[derive(Debug, Clone)]
pub(crate) struct Keepers {
    executable: PathBuf,
    waiting: Arc<Mutex<Waiting>>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// How many keepers were asked for.
    asked: u32,
    keeper: Option<Link>,
}

impl Keepers {
    pub(crate) fn of(executable: PathBuf) -> Self {
        Self {
            executable,
            waiting: Arc::default(),
        }
    }

    /// One that keeps nothing yet, on another thread.
    pub(crate) fn begin(&self) -> Starting {
        let keepers = self.clone();
        Starting::begin(move || keepers.next())
    }

    /// One that keeps nothing yet: the one that waits, else a new one.
    pub(crate) fn next(&self) -> Result<Link> {
        let waiting = self.with(|waiting| {
            waiting.asked = waiting.asked.saturating_add(1);
            waiting.keeper.take()
        });
        match waiting.filter(Link::lives) {
            Some(keeper) => Ok(keeper),
            None => Link::spawn(&self.executable),
        }
    }

    /// Has one wait for the next VM, where there will be one.
    pub(crate) fn prepare(&self) {
        if !self.with(Waiting::lacks_one) {
            return;
        }
        match Link::spawn(&self.executable) {
            // One too many ends when it is dropped.
            Ok(keeper) => self.with(|waiting| {
                waiting.keeper.get_or_insert(keeper);
            }),
            // The next VM's start tells, should it fail again.
            Err(e) => tracing::debug!("no keeper waits for the next VM: {e}"),
        }
    }

    fn with<T>(&self, work: impl FnOnce(&mut Waiting) -> T) -> T {
        work(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Waiting {
    fn lacks_one(&mut self) -> bool {
        self.asked >= MANY && self.keeper.is_none()
    }
}
