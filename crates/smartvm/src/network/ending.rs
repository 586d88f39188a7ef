//! The network given back by its last user, or by whoever finds what dead ones left.

use std::net::Ipv4Addr;
use std::path::Path;

use super::namespace::Namespace;
use super::state::{Phase, State, User, Users};
use super::{LEDGER, Network, lease, lock, vms};
use crate::error::{Error, ErrorKind, Result};
use crate::ledger::Ledger;
use crate::name::VmId;
use crate::rundir::Lock;

impl Network {
    /// Gives back what dead users left: users and leases of VMs that have no run dir, and a
    /// network that nobody uses or whose making was interrupted. Returns what was found.
    pub(crate) fn collect(
        &self,
        is_there: &dyn Fn(&VmId) -> bool,
        dry: bool,
    ) -> Result<Vec<String>> {
        if !self.dir.exists() {
            return Ok(Vec::new());
        }
        let lock = self.lock()?;
        let mut found = Vec::new();
        let users = Users::in_dir(&self.dir);
        for vm in vms(users.all()?).iter().filter(|vm| !is_there(vm)) {
            found.push(format!("VM {vm}, which is gone, still used it"));
            if !dry {
                users.remove(&User::Vm(vm.clone()))?;
            }
        }
        let leases = lease::Leases::in_dir(&self.dir);
        for lease in leases.all()?.into_iter().flatten() {
            if !is_there(&lease.vm) {
                found.push(format!("VM {}, which is gone, had {}", lease.vm, lease.ip));
                if !dry {
                    leases.give_back(&lease.vm, &lease.iface_id, Some(lease.ip))?;
                }
            }
        }
        let state = State::read(&self.dir)?;
        let stale = match &state {
            Some(state) => state.phase != Phase::Up || !state.is_of_this_boot()?,
            None => self.dir.join(LEDGER).exists(),
        };
        if stale || (state.is_some() && users.are_gone()?) {
            found.push("the network was up, and nobody used it".to_owned());
            if !dry {
                give_back_unused(&self.dir, &lock)?;
            }
        }
        Ok(found)
    }
}

/// Undo of a lease: any process can, knowing the directory alone.
pub(super) fn give_back_lease(
    dir: &Path,
    vm: &VmId,
    iface_id: &str,
    known: Option<Ipv4Addr>,
) -> Result<()> {
    if !dir.exists() {
        return Ok(());
    }
    let _lock = lock(dir)?;
    lease::Leases::in_dir(dir).give_back(vm, iface_id, known)
}

/// Undo of joining: the last user gives the network back.
pub(super) fn leave(dir: &Path, vm: &VmId) -> Result<()> {
    if !dir.exists() {
        return Ok(());
    }
    let lock = lock(dir)?;
    Users::in_dir(dir).remove(&User::Vm(vm.clone()))?;
    give_back_unused(dir, &lock)
}

pub(super) fn give_back_unused(dir: &Path, _lock: &Lock) -> Result<()> {
    settled(dir, false)?;
    if Users::in_dir(dir).are_gone()? {
        give_back(dir)?;
    }
    Ok(())
}

/// The state of a network that is whole. What was interrupted is given back first; what a
/// restart of the host took is forgotten.
pub(super) fn settled(dir: &Path, forget_users: bool) -> Result<Option<State>> {
    settle(dir, State::read(dir)?, forget_users)
}

/// The same, where it is known what the state file says.
pub(super) fn settle(
    dir: &Path,
    state: Option<State>,
    forget_users: bool,
) -> Result<Option<State>> {
    let Some(state) = state else {
        give_back(dir)?;
        return Ok(None);
    };
    if !state.is_of_this_boot()? {
        remove_ledger(dir)?;
        State::remove(dir)?;
        if forget_users {
            Users::in_dir(dir).remove(&User::Up)?;
        }
        return Ok(None);
    }
    if state.phase == Phase::Up {
        return Ok(Some(state));
    }
    give_back(dir)?;
    Ok(None)
}

/// Plays the network's ledger backwards.
pub(super) fn give_back(dir: &Path) -> Result<()> {
    if let Some(state) = State::read(dir)?
        && state.phase == Phase::Up
    {
        let namespace = Namespace::here()?;
        if state.namespace != namespace && state.is_of_this_boot()? {
            return Err(Error::new(
                ErrorKind::WrongState,
                "the network belongs to another network namespace than this process's",
            )
            .hint("take it down from there"));
        }
        let state = State {
            phase: Phase::Changing,
            ..state
        };
        state.write(dir)?;
    }
    if let Some(mut ledger) = Ledger::open(&dir.join(LEDGER))? {
        let mut failures = ledger
            .undo_all(|entry| entry.step.undo(entry.outcome.as_ref()))
            .into_iter();
        if let Some(first) = failures.next() {
            return Err(first.with_cleanup(failures));
        }
        remove_ledger(dir)?;
    }
    State::remove(dir)
}

fn remove_ledger(dir: &Path) -> Result<()> {
    let path = dir.join(LEDGER);
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io("removing", &path, e)),
        _ => Ok(()),
    }
}
