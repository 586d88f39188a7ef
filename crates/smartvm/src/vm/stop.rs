//! Ending VMs: gracefully with a deadline, then by `SIGKILL`; when many end, all are
//! signalled before any is waited for.

use std::time::Duration;

use rustix::process::Signal;
use tokio::time::Instant;

use super::{LOCK_PATIENCE, MicroVm, blocking, process_ended, with_files};
use crate::error::{Error, ErrorKind, Result};
use crate::firecracker::exit::Reason;
use crate::firecracker::model::VmState::Resumed;
use crate::firecracker::model::{Action, VmBody};
use crate::process::{PidFd, ProcessId};
use crate::rundir::{Ended, Operation, RunDir, State};
use crate::spec::Arch;
use crate::teardown::{self, StopRequest};

/// How long the agent may take to answer that it shuts down.
const AGENT_PATIENCE: Duration = Duration::from_secs(1);
/// How long giving everything back may take after Firecracker is dead.
const CLEANUP_PATIENCE: Duration = Duration::from_secs(90);

/// How a VM is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StopMode {
    /// Its guest is asked to shut down, by its agent or by Ctrl-Alt-Del; if it hasn't ended
    /// after so long, it is killed.
    Graceful(Duration),
    /// It is killed.
    Kill,
}

impl MicroVm {
    /// Ends it, and waits until everything is given back.
    pub async fn stop(&mut self, mode: StopMode) -> Result<Ended> {
        match self.ask_to_end(mode).await? {
            Asked::Ended(ended) => Ok(*ended),
            Asked::Waiting {
                vmm,
                keeper,
                deadline,
            } => self.see_it_end(vmm, keeper, deadline).await,
        }
    }

    /// Signals it; doesn't wait.
    async fn ask_to_end(&mut self, mode: StopMode) -> Result<Asked> {
        let mut held = match self.begin(Operation::Stop).await {
            // Whatever another operation waits for, killing the VM is what ends it.
            Err(e) if mode == StopMode::Kill && e.kind() == ErrorKind::WrongState => {
                return self.kill_unheld().await;
            }
            held => held?,
        };
        let was = held.state().state;
        let run_dir = self.run_dir.clone();
        if was == State::Created {
            let torn_down = blocking(move || {
                let lock = held.into_lock();
                teardown::tear_down(&run_dir, &lock, Reason::Stopped, None)
            });
            return Ok(Asked::Ended(Box::new(torn_down.await?)));
        }
        let asked = with_files(&self.run_dir, move || {
            let running = leave_request(&run_dir, held.state().vmm.as_ref())?;
            // A full disk must not keep anybody from ending what fills it.
            if was != State::Failed
                && let Err(e) = held.record()
            {
                tracing::warn!(vm = %run_dir.id(), "noting that it ends: {e}");
            }
            let known = held.state();
            Ok((known.vmm.clone(), known.keeper.clone(), running))
        });
        let (vmm, keeper, running) = asked.await?;
        let mut deadline = Instant::now();
        if let (StopMode::Graceful(patience), State::Running | State::Paused) = (mode, was)
            && self.ask_guest(was).await.is_ok()
        {
            deadline += patience;
        } else {
            kill(running.as_ref())?;
        }
        Ok(Asked::Waiting {
            vmm,
            keeper,
            deadline,
        })
    }

    /// Kills it while another operation holds its lock. The keeper cleans up when that has
    /// failed for want of a Firecracker.
    async fn kill_unheld(&self) -> Result<Asked> {
        let run_dir = self.run_dir.clone();
        blocking(move || {
            let state = run_dir.state()?;
            let running = leave_request(&run_dir, state.vmm.as_ref())?;
            kill(running.as_ref())?;
            Ok(Asked::Waiting {
                vmm: state.vmm,
                keeper: state.keeper,
                deadline: Instant::now(),
            })
        })
        .await
    }

    /// Asks the guest to shut down: through its agent, else by Ctrl-Alt-Del.
    async fn ask_guest(&self, was: State) -> Result<()> {
        if was == State::Paused {
            let request = VmBody { state: Resumed }.request()?;
            self.client().send(&request).await?;
        }
        let by_agent = async { self.agent()?.with_patience(AGENT_PATIENCE).shutdown().await };
        match by_agent.await {
            Ok(()) => Ok(()),
            Err(agent) if Arch::host() == Some(Arch::X86_64) => {
                tracing::debug!(vm = %self.id(), "no agent to ask ({agent}): Ctrl-Alt-Del");
                let press = Action::SendCtrlAltDel.request()?;
                self.client().send(&press).await
            }
            Err(agent) => Err(agent),
        }
    }

    /// Waits for Firecracker until the deadline, kills it then, and waits for the cleanup.
    async fn see_it_end(
        &mut self,
        vmm: Option<ProcessId>,
        keeper: Option<ProcessId>,
        deadline: Instant,
    ) -> Result<Ended> {
        if let Some(vmm) = &vmm {
            let left = deadline.saturating_duration_since(Instant::now());
            if !process_ended(vmm, Some(left)).await? {
                kill(vmm.open()?.as_ref())?;
            }
        }
        // Not running, or cleaned up by nobody: whoever asked to end it does the work.
        let keeper_ended = match &keeper {
            Some(keeper) => process_ended(keeper, Some(CLEANUP_PATIENCE)).await?,
            None => true,
        };
        if !keeper_ended {
            return Err(Error::new(
                ErrorKind::Timeout,
                format!("VM {} is dead, but its keeper still cleans up", self.id()),
            )
            .hint("`smartvm gc` shows whether it got stuck"));
        }
        self.link = None;
        let (run_dir, id) = (self.run_dir.clone(), self.id().clone());
        if run_dir.path().symlink_metadata().is_err() {
            return with_files(&self.run_dir, move || run_dir.records().get(&id)).await;
        }
        blocking(move || match run_dir.lock(teardown::DOING, LOCK_PATIENCE) {
            Ok(lock) => teardown::tear_down(&run_dir, &lock, Reason::Killed, None),
            Err(e) if e.kind() == ErrorKind::NotFound => run_dir.records().get(&id),
            Err(e) => Err(e),
        })
        .await
    }
}

enum Asked {
    Ended(Box<Ended>),
    Waiting {
        vmm: Option<ProcessId>,
        keeper: Option<ProcessId>,
        deadline: Instant,
    },
}

/// Ends many VMs: all are signalled before any is waited for. One result for each.
pub async fn stop_all(vms: &mut [MicroVm], mode: StopMode) -> Vec<Result<Ended>> {
    let mut asked = Vec::with_capacity(vms.len());
    for vm in &mut *vms {
        asked.push(vm.ask_to_end(mode).await);
    }
    let mut results = Vec::with_capacity(vms.len());
    for (vm, asked) in vms.iter_mut().zip(asked) {
        results.push(match asked {
            Ok(Asked::Ended(ended)) => Ok(*ended),
            Ok(Asked::Waiting {
                vmm,
                keeper,
                deadline,
            }) => vm.see_it_end(vmm, keeper, deadline).await,
            Err(e) => Err(e),
        });
    }
    results
}

/// Says that the end was asked for, unless it came before: then the record tells its cause.
/// Returns the Firecracker that runs still.
fn leave_request(run_dir: &RunDir, vmm: Option<&ProcessId>) -> Result<Option<PidFd>> {
    let running = match vmm {
        Some(vmm) => vmm.open()?,
        None => None,
    };
    if (running.is_some() || vmm.is_none())
        && let Err(e) = StopRequest::write(run_dir)
    {
        tracing::warn!(vm = %run_dir.id(), "its record won't tell that its end was asked for: {e}");
    }
    Ok(running)
}

fn kill(vmm: Option<&PidFd>) -> Result<()> {
    match vmm {
        Some(vmm) => vmm.signal(Signal::KILL).map(drop),
        None => Ok(()),
    }
}
