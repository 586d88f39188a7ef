//! The policies in force, which a later call may have put in the place of the options' and of
//! the specs'. They are in the network's state and in the leases, so that tables that are made
//! anew have them too.

use super::Lease;
use super::firewall::{self, Counters};
use super::lease::Leases;
use super::link::Links;
use super::namespace::Namespace;
use super::state::{Phase, State};
use super::{Network, conntrack, port};
use crate::error::{Error, ErrorKind, Result};
use crate::name::VmId;
use crate::spec::FirewallEgress;

impl Network {
    /// The subnet's policy in force, and what the firewall has counted; `None`: the network
    /// isn't up.
    pub fn firewall(&self) -> Result<Option<(FirewallEgress, Counters)>> {
        let Some(state) = self.up_state()? else {
            return Ok(None);
        };
        let counters = firewall::counters(&self.bridge)?;
        Ok(counters.map(|counters| (self.egress(&state).unwrap_or_default(), counters)))
    }

    /// What a VM has of the network, its own rules among it: its first lease.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]: the VM has no leased interface.
    pub fn lease_of(&self, vm: &VmId) -> Result<Lease> {
        let leases = Leases::in_dir(&self.dir).all()?;
        let mut leases = leases.into_iter().flatten();
        leases
            .find(|lease| lease.vm == *vm)
            .ok_or_else(|| no_lease(vm))
    }

    /// Puts another policy in the place of the subnet's, until the network is taken down: what
    /// it denies ends at once, what it allows goes on.
    ///
    /// # Errors
    /// [`ErrorKind::WrongState`]: the network isn't up, or with other options.
    pub fn set_firewall(&self, egress: &FirewallEgress) -> Result<()> {
        let _lock = self.lock()?;
        let mut state = self.up_state()?.ok_or_else(not_up)?;
        self.require_same(&state)?;
        // Written first: what is interrupted in between, `network up` brings to its end.
        state.firewall = Some(egress.clone());
        state.write(&self.dir)?;
        firewall::replace_policy(&self.bridge, egress)?;
        state.rules = firewall::fingerprint(&self.bridge)?;
        state.write(&self.dir)?;
        self.end_denied(&state)
    }

    /// The same for what one VM alone may reach; `None`: all that the subnet's rules allow.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]: the VM has no leased interface.
    pub fn set_vm_firewall(&self, vm: &VmId, egress: Option<&FirewallEgress>) -> Result<()> {
        let _lock = self.lock()?;
        let leases = Leases::in_dir(&self.dir);
        let mut own: Vec<_> = leases.all()?.into_iter().flatten().collect();
        own.retain(|lease| lease.vm == *vm);
        if own.is_empty() {
            return Err(no_lease(vm));
        }
        let state = self.up_state()?;
        let mut links = Links::open()?;
        for mut lease in own {
            lease.firewall = egress.cloned();
            drop(leases.write(&lease)?);
            // A VM that isn't started yet gets it with its TAP device.
            if state.is_some() && links.find(lease.tap.as_str())?.is_some() {
                firewall::replace_vm_policy(&self.bridge, &port(lease))?;
            }
        }
        state.map_or(Ok(()), |state| self.end_denied(&state))
    }

    /// The policy of the subnet: what was set, else the options'.
    pub(super) fn egress(&self, state: &State) -> Option<FirewallEgress> {
        let options = || self.options.firewall.clone().and_then(|it| it.egress);
        state.firewall.clone().or_else(options)
    }

    /// Forgets the conversations that are denied now. None of their packets pass anyway; but
    /// they would go on, were they allowed again.
    fn end_denied(&self, state: &State) -> Result<()> {
        let subnet = self.egress(state).unwrap_or_default();
        let subnet = firewall::Policy::new(&subnet)?;
        let mut vms = std::collections::HashMap::new();
        for lease in Leases::in_dir(&self.dir).all()?.into_iter().flatten() {
            if let Some(egress) = &lease.firewall {
                vms.insert(lease.ip, firewall::Policy::new(egress)?);
            }
        }
        conntrack::end(self.subnet.net(), |guest, packet| {
            let own = vms.get(&guest);
            own.is_some_and(|own| own.denies(packet)) || subnet.denies(packet)
        })
    }

    /// The state of a network that is whole, of this boot and of this namespace.
    pub(super) fn up_state(&self) -> Result<Option<State>> {
        let state = State::read(&self.dir)?;
        let here = Namespace::here()?;
        Ok(match state {
            Some(state)
                if state.phase == Phase::Up
                    && state.is_of_this_boot()?
                    && state.namespace == here =>
            {
                Some(state)
            }
            _ => None,
        })
    }
}

fn not_up() -> Error {
    Error::new(
        ErrorKind::WrongState,
        "the network isn't up: there are no rules",
    )
    .hint("smartvm network up")
}

fn no_lease(vm: &VmId) -> Error {
    let message = format!("VM {vm} has no interface with a leased address");
    Error::new(ErrorKind::NotFound, message)
        .hint("rules hold for interfaces without hostDevName, such as --network adds")
}
