//! How the end of a command is seen.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions};

use crate::protocol::{ErrorCode, Exit, Refusal};

/// After the command has ended: how long its output may pause before it counts as through, and
/// how long it may go on at most, where a process that it left behind keeps it open.
const OUTPUT_PAUSE: Duration = Duration::from_millis(100);
const OUTPUT_LINGER: Duration = Duration::from_secs(2);

/// A command that has ended, whose output may still be on its way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lingering {
    ended: Instant,
    heard: Instant,
}

impl Lingering {
    /// From now on.
    pub(crate) fn begin() -> Self {
        let now = Instant::now();
        Self {
            ended: now,
            heard: now,
        }
    }

    /// Output came.
    pub(crate) fn hear(&mut self) {
        self.heard = Instant::now();
    }

    /// When no more is waited for.
    pub(crate) fn deadline(&self) -> Instant {
        (self.heard + OUTPUT_PAUSE).min(self.ended + OUTPUT_LINGER)
    }

    pub(crate) fn is_over(&self) -> bool {
        Instant::now() >= self.deadline()
    }
}

/// Takes the status of a command, once it has ended.
pub(crate) fn reap(pidfd: &OwnedFd) -> Result<Exit, Refusal> {
    let failed = |error: io::Error| Refusal::new(ErrorCode::Failed, format!("waiting: {error}"));
    let status = loop {
        match rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED) {
            Err(Errno::INTR) => {}
            Err(error) => return Err(failed(error.into())),
            Ok(Some(status)) => break status,
            Ok(None) => return Err(failed(io::Error::other("no status"))),
        }
    };
    Ok(match status.terminating_signal() {
        Some(signal) => Exit::Signal(signal),
        None => Exit::Code(status.exit_status().unwrap_or(0)),
    })
}
