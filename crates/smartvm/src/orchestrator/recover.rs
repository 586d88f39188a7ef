//! Taking over what an earlier process left: live VMs are adopted, dead ones given back.

use super::{Collected, SmartVm};
use crate::error::{ErrorKind, Result};
use crate::events::Events;
use crate::rundir::{Ended, State, VmState};
use crate::spec::Lifetime;
use crate::vm::{MicroVm, StopMode, blocking, stop_all};

/// What [`SmartVm::recover`] found.
#[derive(Debug)]
#[non_exhaustive]
pub struct Recovered {
    /// Detached VMs that live on, and those that are only created: use them as if this
    /// process had made them. One whose end an earlier process had asked for is `stopping`: it
    /// may end at any moment, or never, if its guest takes no notice; another stop ends it.
    pub adopted: Vec<MicroVm>,
    /// VMs that were dead: what they held was given back, and their record says why. Live ones,
    /// too, that a dead process had left in the midst of something.
    pub collected: Vec<Collected>,
}

impl SmartVm {
    /// Takes over what an earlier process, or an earlier boot of this host, left. VMs that
    /// belong to another living process are left to it.
    ///
    /// # Errors
    /// If the runtime directory can't be read. A VM that can't be read or given back is told
    /// in [`Recovered::collected`], and doesn't stop the work on the others.
    pub async fn recover(&self) -> Result<Recovered> {
        let this = self.looking();
        let collected = blocking(move || this.gc(false)).await?;
        let adopted = self
            .live(|state| {
                use State::{Created, Paused, Running, Stopping};
                state.lifetime == Lifetime::Detached
                    && matches!(state.state, Created | Running | Paused | Stopping)
            })
            .await?;
        Ok(Recovered { adopted, collected })
    }

    /// Handles of the live VMs with this label: `value` may be left open.
    pub async fn with_label(&self, key: &str, value: Option<&str>) -> Result<Vec<MicroVm>> {
        self.live(|state| {
            let found = state.spec.labels.get(key);
            found.is_some_and(|found| value.is_none_or(|value| found == value))
        })
        .await
    }

    /// Ends all VMs under the runtime directory, whoever made them: all are signalled before
    /// any is waited for. One result for each.
    pub async fn stop_all(&self, mode: StopMode) -> Result<Vec<Result<Ended>>> {
        let mut all = self.live(|_| true).await?;
        Ok(stop_all(&mut all, mode).await)
    }

    /// What happens to the VMs from now on, whoever does it: see [`crate::events`].
    pub fn events(&self) -> Result<Events> {
        Events::open(&self.runtime)
    }

    async fn live(&self, wanted: impl Fn(&VmState) -> bool) -> Result<Vec<MicroVm>> {
        let this = self.looking();
        let listed = blocking(move || this.list()).await?;
        let mut handles = Vec::new();
        for (id, state) in listed {
            if !state.is_ok_and(|state| wanted(&state)) {
                continue;
            }
            match self.get(&id) {
                Ok(vm) => handles.push(vm),
                // It ended while we looked.
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        Ok(handles)
    }
}
