//! What the agent of a guest is asked for by those who start and wake VMs. A guest that goes on
//! after standing still has a clock that is behind, and if it was restored, others may have its
//! random numbers.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::MicroVm;
use super::held::Held;
use crate::agent::{Command, MainCommand};
use crate::error::{Error, ErrorKind, Result};
use crate::random;
use crate::wiring::Move;

/// How long the agent may take to answer: the guest's whole kernel has to come to itself, which
/// takes its time in an emulated host.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long a guest may take from its start until its agent answers.
const BOOT_PATIENCE: Duration = Duration::from_secs(180);
/// How long the agent of a running guest may take to say that it is there.
pub(crate) const AGENT_PATIENCE: Duration = Duration::from_secs(2);

impl MicroVm {
    /// The newest version of the protocol that the guest's agent speaks, if it answers.
    pub(crate) async fn agent_version(&self, patience: Duration) -> Option<u32> {
        let greeting = self.agent().ok()?.greeting(patience).await.ok()?;
        greeting.versions.into_iter().max()
    }

    /// Begins the guest's main command, as soon as its agent answers.
    pub(super) async fn begin_main(&self, command: &Command) -> Result<MainCommand> {
        let agent = self.agent()?;
        agent.wait_ready(BOOT_PATIENCE).await?;
        agent.run_main(command).await
    }

    /// Asks a guest that is about to stand still for its agent, which is woken later.
    pub(super) async fn remember_agent(&self, held: &mut Held) {
        if let Some(version) = self.agent_version(AGENT_PATIENCE).await {
            held.change().agent = Some(version);
        }
    }

    /// Waits until its agent answers, sets its clock, gives it randomness of its own, and the
    /// addresses that it has now.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] if the agent doesn't answer.
    pub(crate) async fn wake_guest(&self, moves: &[Move]) -> Result<()> {
        let agent = self.agent()?.with_patience(PATIENCE);
        agent.wait_ready(PATIENCE).await?;
        agent.add_entropy(&random::bytes::<64>()?).await?;
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
