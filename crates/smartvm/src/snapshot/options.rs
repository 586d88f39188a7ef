//! How a snapshot is made.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

/// What happens while a snapshot is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Moment {
    /// Its place is claimed.
    Claimed,
    /// The VM is paused.
    Paused,
    /// Firecracker wrote state and memory.
    Written,
    /// The drives are copied.
    Copied,
    /// The VM runs on.
    Resumed,
    /// The manifest is written: the next is that all gets its name.
    Whole,
    /// All has its name.
    Published,
}

/// Called at every moment; answering `Break` cancels the snapshot, which gives everything back.
pub type Watch = Arc<dyn Fn(Moment) -> ControlFlow<()> + Send + Sync>;

/// How a snapshot is made.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct SnapshotOptions {
    /// Leave the VM paused. By default it runs on if it ran.
    pub leave_paused: bool,
    /// Whether its guest has an agent; by default a running guest is asked, and taken to have
    /// none if it doesn't answer within 2 seconds.
    pub agent: Option<bool>,
    /// Told of every moment.
    pub watch: Option<Watch>,
}

impl SnapshotOptions {
    /// Leaves the VM paused.
    #[must_use]
    pub fn leave_paused(mut self) -> Self {
        self.leave_paused = true;
        self
    }

    /// Says whether the guest has an agent.
    #[must_use]
    pub fn agent(mut self, has: bool) -> Self {
        self.agent = Some(has);
        self
    }

    /// Tells `watch` of every moment.
    #[must_use]
    pub fn watch(mut self, watch: Watch) -> Self {
        self.watch = Some(watch);
        self
    }
}

impl fmt::Debug for SnapshotOptions {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("SnapshotOptions")
            .field("leave_paused", &self.leave_paused)
            .field("agent", &self.agent)
            .field("watch", &self.watch.is_some())
            .finish()
    }
}
