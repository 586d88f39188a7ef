//! How a VM is started, and who is told of it.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

use crate::agent::Command;
use crate::error::{Error, ErrorKind, Result};
use crate::step::Step;

/// What happens while a VM is started.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The keeper runs.
    KeeperStarted,
    /// A step's intent is recorded, its effect is about to be made.
    StepBegins {
        /// From 0.
        number: usize,
        /// Of so many.
        total: usize,
        /// The step.
        step: &'a Step,
    },
    /// A step's effect is made, but not recorded yet.
    StepApplied {
        /// From 0.
        number: usize,
    },
    /// A step is done and recorded.
    StepDone {
        /// From 0.
        number: usize,
    },
    /// A request is about to be sent to Firecracker.
    Configuring {
        /// Its path.
        path: &'a str,
    },
    /// The guest runs.
    Started,
}

/// Called at every event; answering `Break` cancels the start, which gives everything back.
pub type Watch = Arc<dyn Fn(&Event<'_>) -> ControlFlow<()> + Send + Sync>;

/// How a VM is started.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct StartOptions {
    /// Told of every event.
    pub watch: Option<Watch>,
    /// What is run in the guest.
    pub main_command: Option<Command>,
}

impl StartOptions {
    /// Tells `watch` of every event.
    #[must_use]
    pub fn watch(mut self, watch: Watch) -> Self {
        self.watch = Some(watch);
        self
    }

    /// Runs this in the guest as its main command: what it writes goes to the console, and when
    /// it ends, the VM does, for the reason [`CommandEnded`]. The start is done when it has begun,
    /// and fails where it can't be begun.
    ///
    /// [`CommandEnded`]: crate::firecracker::exit::Reason::CommandEnded
    #[must_use]
    pub fn main_command(mut self, command: Command) -> Self {
        self.main_command = Some(command);
        self
    }

    pub(super) fn tell(&self, event: &Event<'_>) -> Result<()> {
        match self.watch.as_ref().map(|watch| watch(event)) {
            Some(ControlFlow::Break(())) => Err(cancelled()),
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for StartOptions {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("StartOptions")
            .field("watch", &self.watch.is_some())
            .field("main_command", &self.main_command)
            .finish()
    }
}

pub(super) fn cancelled() -> Error {
    Error::new(ErrorKind::Cancelled, "the start was cancelled")
}
