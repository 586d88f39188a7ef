//! Pausing and resuming.

use std::convert::Infallible;

use tokio::sync::oneshot;

use super::kept::Kept;
use super::{Held, MicroVm, finish};
use crate::error::{Error, ErrorKind, Result};
use crate::firecracker::Client;
use crate::firecracker::model::{VmBody, VmState as Wire};
use crate::rundir::{Operation, State};
use crate::wiring::Move;

/// How a guest is woken that goes on.
struct Waking {
    vm: MicroVm,
    /// Closed once nobody waits for it.
    given_up: oneshot::Receiver<Infallible>,
}

impl Waking {
    async fn wake(self, moves: &[Move]) -> Result<()> {
        tokio::select! {
            woken = self.vm.wake_guest(moves) => woken,
            _ = self.given_up => {
                let message = "nobody waits any more for the guest's agent";
                Err(Error::new(ErrorKind::Cancelled, message))
            }
        }
    }
}

impl MicroVm {
    /// Stops its guest's processors. Pausing a paused VM does nothing. A guest with an initramfs
    /// is asked for its agent before, if nothing is known of it, for at most 2 seconds.
    ///
    /// What is begun is brought to its end even if this future is dropped.
    pub async fn pause(&self) -> Result<()> {
        let (mut held, client) = self.begin_again(Operation::Pause).await?;
        if held.state().may_have_unseen_agent() {
            Box::pin(self.remember_agent(&mut held)).await;
        }
        self.switch(held, client, Wire::Paused, None).await
    }

    /// Lets its guest go on, and sets its clock if it has an agent. Resuming a running VM
    /// changes nothing else.
    ///
    /// What is begun is brought to its end even if this future is dropped; its agent isn't waited
    /// for then.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] if the agent that it had doesn't answer
    /// any more; the guest runs all the same.
    pub async fn resume(&self) -> Result<()> {
        let (held, client) = self.begin_again(Operation::Resume).await?;
        let (_waiting, given_up) = oneshot::channel();
        let waking = held.state().agent.is_some().then(|| Waking {
            vm: self.another(),
            given_up,
        });
        self.switch(held, client, Wire::Resumed, waking).await
    }

    /// Has Firecracker come to a state, and the guest wake.
    async fn switch(
        &self,
        held: Held,
        client: Client,
        to: Wire,
        waking: Option<Waking>,
    ) -> Result<()> {
        // One connection for each VM at most, whoever else has handles of it.
        let kept = self.link.is_some().then(|| self.kept.clone());
        finish::even_if_dropped(switched(held, client, to, waking, kept)).await
    }
}

async fn switched(
    mut held: Held,
    mut client: Client,
    to: Wire,
    waking: Option<Waking>,
    kept: Option<Kept>,
) -> Result<()> {
    let was = held.state().state;
    client
        .send_busy_polling(&VmBody { state: to }.request()?)
        .await?;
    let mut woken = Ok(());
    if to == Wire::Resumed {
        if let Some(waking) = waking {
            // On the heap: it takes more room than all else here, and not every guest has an
            // agent.
            woken = Box::pin(waking.wake(&held.state().moves)).await;
        }
        if woken.is_ok() {
            held.forget_moves();
        }
    }
    // Its guest runs, whatever its agent says.
    let (held, recorded) = held.recorded().await?;
    if let Err(e) = recorded {
        // What can't be written down isn't done: its guest is to be as its state says, which may
        // have been written in part.
        let state = match held.run_dir().state().map_or(was, |known| known.state) {
            State::Paused => Wire::Paused,
            _ => Wire::Resumed,
        };
        let undone = client.send(&VmBody { state }.request()?).await;
        return Err(e.with_cleanup(undone.err()));
    }
    if let Some(kept) = kept
        && let Some(left) = held.leave(client)
    {
        kept.leave(left);
    }
    woken
}
