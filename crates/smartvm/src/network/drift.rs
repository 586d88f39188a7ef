//! How guests' devices and the firewall differ from what they should be, and how that is put
//! right.

use super::Lease;
use super::lease::Leases;
use super::link::{Device, Links};
use super::state::{Instance, State};
use super::{Network, firewall, port};
use crate::error::Result;

/// What is not as it should be.
#[derive(Debug, Default)]
pub(super) struct Drift {
    /// In words.
    pub(super) told: Vec<String>,
    /// TAP devices that have to be put on the bridge again.
    pub(super) astray: Vec<Lease>,
    /// Whether the firewall has to be made anew.
    pub(super) firewall: bool,
}

/// Looks only whether there is a firewall, and a closed one where it has to be.
pub(super) fn at_a_glance(network: &Network, state: &State) -> Result<Drift> {
    let there = firewall::is_there(&network.bridge)?;
    Ok(Drift {
        firewall: !there || (must_be_closed(state) && !firewall::is_closed(&network.bridge)?),
        ..Drift::default()
    })
}

fn must_be_closed(state: &State) -> bool {
    let tunnel = state.tunnel.as_ref();
    tunnel.is_some_and(|tunnel| tunnel.guests.fail_closed)
}

/// Looks at the TAP devices of running guests, and at the firewall.
pub(super) fn of(network: &Network, state: &State, links: &mut Links) -> Result<Drift> {
    let mut drift = Drift::default();
    let devices = links.all()?;
    let find = |name: &str| devices.iter().find(|device| device.name == name);
    let bridge = find(network.bridge.as_str()).map(|bridge| bridge.index);
    let leases = Leases::in_dir(&network.dir).all()?;
    // Without its TAP device, a VM isn't started yet, or at its end; one without our mark is still
    // being made.
    let mark = Instance::of(&network.dir)?.mark();
    let find = |name: &str| find(name).filter(|device| device.alias.as_deref() == Some(&mark));
    let leases = leases.into_iter().flatten();
    let started: Vec<(Lease, &Device)> = leases
        .filter_map(|lease| find(lease.tap.as_str()).map(|device| (lease, device)))
        .collect();
    for (lease, device) in &started {
        let what = match device {
            Device { master, .. } if *master != bridge => "isn't on the bridge",
            Device { up: false, .. } => "is down",
            Device { isolated, .. } if *isolated == network.guests_may_talk() => {
                "has lost its isolation"
            }
            _ => continue,
        };
        let told = format!("{} of VM {} {what}", lease.tap, lease.vm);
        drift.told.push(told);
        drift.astray.push(lease.clone());
    }
    let Some(found) = firewall::fingerprint(&network.bridge)? else {
        drift.told.push("our nftables table is gone".to_owned());
        drift.firewall = true;
        return Ok(drift);
    };
    if state.rules.as_ref().is_some_and(|rules| *rules != found) {
        let told = "somebody changed the rules in our nftables tables";
        drift.told.push(told.to_owned());
        drift.firewall = true;
    }
    if must_be_closed(state) && !firewall::is_closed(&network.bridge)? {
        let told = "our nftables table isn't closed behind the tunnel";
        drift.told.push(told.to_owned());
        drift.firewall = true;
    }
    let admitted = firewall::admitted(&network.bridge)?;
    for (lease, _) in started
        .iter()
        .filter(|(lease, _)| !admitted.contains(&lease.tap))
    {
        let told = format!("the firewall doesn't know {} of VM {}", lease.tap, lease.vm);
        drift.told.push(told);
        drift.firewall = true;
    }
    Ok(drift)
}

impl Network {
    /// Makes the firewall anew, with all guests and the policies in force.
    pub(super) fn make_firewall(&self, state: &mut State) -> Result<()> {
        let instance = Instance::of(&self.dir)?;
        let mut rules = self.rules(&instance, state.tunnel.as_ref());
        rules.egress = self.egress(state);
        let leases = Leases::in_dir(&self.dir).all()?;
        rules.vms = leases.into_iter().flatten().map(port).collect();
        firewall::apply(&rules)?;
        state.rules = firewall::fingerprint(&self.bridge)?;
        state.write(&self.dir)
    }
}
