//! A guest that goes on after standing still: its clock is behind, and if it was restored,
//! others may have its random numbers.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::rand::{GetRandomFlags, getrandom};
use smartvm_agent::protocol::ENTROPY_SINCE;

use super::MicroVm;
use crate::error::{Error, ErrorKind, Result};
use crate::network::Move;

/// How long the agent may take to answer: the guest's whole kernel has to come to itself, which
/// takes its time in an emulated host.
const PATIENCE: Duration = Duration::from_secs(120);

impl MicroVm {
    /// Waits until its agent answers, sets its clock, gives it randomness of its own, and the
    /// addresses that it has now.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] if the agent doesn't answer.
    pub(crate) async fn wake_guest(&self, moves: &[Move]) -> Result<()> {
        let agent = self.agent()?.with_patience(PATIENCE);
        let greeting = agent.wait_ready(PATIENCE).await?;
        if greeting.versions.iter().any(|it| *it >= ENTROPY_SINCE) {
            let mut bytes = [0; 64];
            let filled = getrandom(&mut bytes, GetRandomFlags::empty())
                .map_err(|e| Error::new(ErrorKind::Host, "drawing random numbers").because(e))?;
            agent.add_entropy(&bytes[..filled]).await?;
        }
        for one in moves {
            agent.move_address(one).await?;
        }
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_err(|e| Error::new(ErrorKind::Host, "reading the clock").because(e))?;
        agent
            .set_clock(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX))
            .await
    }
}
