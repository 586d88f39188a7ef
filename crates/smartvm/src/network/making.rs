//! The network made by its first user, and mended for all that come after.

use super::ending::give_back;
use super::link::Links;
use super::namespace::Namespace;
use super::state::{Instance, Phase, State, User, Users, digest};
use super::{LEDGER, Network, NetworkStep, drift, firewall, keeper, lease, preflight, tunnel};
use crate::error::Result;
use crate::ledger::{self, Ledger};
use crate::name::{IfName, VmId};
use crate::process::boot_id;
use crate::rundir::Lock;
use crate::step::Step;

/// How closely is looked at what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Care {
    /// At all there is.
    Thorough,
    /// At what lets no guest pass that shouldn't: for each VM that joins.
    Quick,
}

impl Network {
    /// Counts a VM in; makes the network for the first.
    pub(super) fn join(&self, vm: &VmId) -> Result<()> {
        let lock = self.lock()?;
        self.ensure(&lock, Care::Quick)?;
        Users::in_dir(&self.dir).add(&User::Vm(vm.clone()))
    }

    /// Makes the network, or mends the one that is there.
    pub(super) fn ensure(&self, lock: &Lock, care: Care) -> Result<()> {
        if let Some(state) = self.settled()? {
            self.require_same(&state)?;
            // Its keeper sees to all of it, and a port's making to what it needs at once.
            if care == Care::Quick && state.tunnel.is_none() && keeper::shows_itself(lock) {
                return Ok(());
            }
            return self.mend(state, care);
        }
        let instance = Instance::of(&self.dir)?;
        let plan = preflight::plan(self, &instance)?;
        let mut state = State {
            phase: Phase::Changing,
            bridge: self.bridge.clone(),
            subnet: self.subnet,
            data_dir: self.data_dir.clone(),
            options: digest(&self.options)?,
            boot_id: boot_id()?.to_owned(),
            namespace: Namespace::here()?,
            nat_interface: Some(plan.nat_interface),
            tunnel: plan.tunnel,
            firewall: None,
            rules: None,
        };
        state.write(&self.dir)?;
        let made = (|| {
            let mut ledger = Ledger::create(&self.dir.join(LEDGER))?;
            for step in plan.steps {
                ledger.run(&Step::Network(step), |step| match step {
                    Step::Network(step) => step.apply(self),
                    _ => Ok(crate::step::Outcome::default()),
                })?;
            }
            state.rules = firewall::fingerprint(&self.bridge)?;
            state.phase = Phase::Up;
            state.write(&self.dir)
        })();
        made.map_err(|e| e.with_cleanup(give_back(&self.dir).err()))
    }

    /// Puts right what others changed, and follows the default route where it leads out of
    /// another interface than before.
    pub(super) fn mend(&self, mut state: State, care: Care) -> Result<()> {
        // What closes the guests' way out comes before all that opens it.
        let mut links = Links::open()?;
        let found = match care {
            Care::Thorough => drift::of(self, &state, &mut links)?,
            Care::Quick => drift::at_a_glance(self, &state)?,
        };
        if found.firewall {
            self.make_firewall(&mut state)?;
        }
        if let Some(tunnel) = &mut state.tunnel
            && tunnel::follow(self, tunnel)?
        {
            state.write(&self.dir)?;
        }
        state.tunnel.as_ref().map_or(Ok(()), tunnel::mend_closed)?;
        let instance = Instance::of(&self.dir)?;
        let bridge = links.find(self.bridge.as_str())?;
        if let Some(device) = &bridge
            && !device.is_ours(&instance.mark(), Some(instance.bridge_mac()))
        {
            return Err(preflight::taken(&self.bridge, device.alias.as_deref()));
        }
        let kept = keeper::alive(&self.dir)?.is_some();
        match &bridge {
            None => {
                preflight::bridge_step(self, &instance).apply(self)?;
                let leases = lease::Leases::in_dir(&self.dir).all()?;
                for lease in leases.into_iter().flatten() {
                    links.attach(&lease.tap, &self.bridge, !self.guests_may_talk())?;
                }
            }
            // Its keeper sees to the rest, and what it sees to lets no more pass.
            Some(device) if care == Care::Quick && kept && device.up && state.tunnel.is_none() => {
                return Ok(());
            }
            Some(device) => {
                links.set_address_of(device.index, &self.bridge, self.subnet)?;
                if !device.up {
                    links.set_up(&self.bridge)?;
                }
            }
        }
        if let Some(tunnel) = &state.tunnel {
            tunnel::mend(self, &instance, tunnel)?;
        }
        let uplink = preflight::uplink(self, &mut links, state.tunnel.as_ref())?;
        self.mend_forwarding(&state, uplink.as_deref())?;
        for lease in found.astray {
            links.attach(&lease.tap, &self.bridge, !self.guests_may_talk())?;
        }
        if uplink.is_some() && uplink != state.nat_interface {
            state.nat_interface = uplink;
            state.write(&self.dir)?;
        }
        match kept {
            true => Ok(()),
            false => preflight::keeper_step(self)?.apply(self).map(drop),
        }
    }

    /// Has the interfaces forward that have to, and the one no more that traffic left by before.
    fn mend_forwarding(&self, state: &State, uplink: Option<&str>) -> Result<()> {
        let Some(mut ledger) = Ledger::open(&self.dir.join(LEDGER))? else {
            return Ok(());
        };
        let before = state.nat_interface.as_deref();
        if uplink.is_some() && uplink != before {
            let is_that = |_, entry: &ledger::Entry| {
                matches!(&entry.step, Step::Network(NetworkStep::Forward { interface, .. })
                    if Some(interface.as_str()) == before)
            };
            let mut failures = ledger
                .undo_some(is_that, |entry| entry.step.undo(entry.outcome.as_ref()))
                .into_iter();
            if let Some(first) = failures.next() {
                return Err(first.with_cleanup(failures));
            }
        }
        let tunnel = state.tunnel.as_ref().map(|it| &it.routes.interface);
        let uplink = uplink.map(str::parse::<IfName>).transpose()?;
        for (interface, also) in [
            (Some(&self.bridge), None),
            (tunnel, uplink.as_ref()),
            (uplink.as_ref(), tunnel),
        ] {
            let Some(interface) = interface else { continue };
            let also: Vec<IfName> = also.into_iter().cloned().collect();
            if let Some(step) = preflight::forward_step(interface, &self.bridge, &also)? {
                ledger.run(&Step::Network(step.clone()), |_| step.apply(self))?;
            }
        }
        Ok(())
    }
}
