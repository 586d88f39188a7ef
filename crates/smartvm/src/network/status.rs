//! What is known of the network, for people and programs.

use std::fmt;

use serde::Serialize;

use super::Lease;
use super::firewall::InForce;
use super::lease::Leases;
use super::link::Links;
use super::state::{Instance, Phase, State, User, Users};
use super::{ForeignChain, Network, TunnelStatus, foreign, forwarding, keeper, tunnel, vms};
use crate::error::Result;
use crate::name::VmId;

/// What is known of the network.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Status {
    /// Whether it is up.
    pub up: bool,
    /// Whether `network up` keeps it.
    pub kept: bool,
    /// The bridge.
    pub bridge: String,
    /// The guests' subnet.
    pub subnet: String,
    /// The bridge's address.
    pub gateway: String,
    /// The interface that traffic leaves by.
    pub nat_interface: Option<String>,
    /// Addresses that are free.
    pub free: u32,
    /// The VMs that use it.
    pub users: Vec<VmId>,
    /// What is leased.
    pub leases: Vec<Lease>,
    /// What guests may reach, and what was decided about; none while it is down.
    pub firewall: Option<InForce>,
    /// The tunnel, where guests' traffic has one.
    pub tunnel: Option<TunnelStatus>,
    /// How it differs from what it should be.
    pub drift: Vec<String>,
    /// Other programs' chains that drop what guests send.
    pub foreign: Vec<ForeignChain>,
}

pub(super) fn of(network: &Network) -> Result<Status> {
    let state = match State::read(&network.dir)? {
        Some(state) if state.is_of_this_boot()? => Some(state),
        _ => None,
    };
    let leases: Vec<Lease> = Leases::in_dir(&network.dir)
        .all()?
        .into_iter()
        .flatten()
        .collect();
    let users = Users::in_dir(&network.dir).all()?;
    let taken = u32::try_from(leases.len()).unwrap_or(u32::MAX);
    let up = state.as_ref().is_some_and(|state| state.phase == Phase::Up);
    Ok(Status {
        up,
        kept: users.contains(&User::Up),
        bridge: network.bridge.to_string(),
        subnet: network.subnet.to_string(),
        gateway: network.subnet.gateway().to_string(),
        free: network.subnet.guests().saturating_sub(taken),
        users: vms(users),
        leases,
        firewall: match up {
            true => network.firewall()?.map(InForce::from),
            false => None,
        },
        drift: match &state {
            Some(state) => {
                let mut drift = drift(network, state)?;
                if up && keeper::alive(&network.dir)?.is_none() {
                    drift.push("the network's keeper is gone".to_owned());
                }
                drift
            }
            None => Vec::new(),
        },
        tunnel: (state.as_ref().and_then(|state| state.tunnel.as_ref()))
            .map(tunnel::status)
            .transpose()?,
        nat_interface: state.and_then(|state| state.nat_interface),
        // Without nft there is nothing of others' to find.
        foreign: foreign::find(&network.bridge).unwrap_or_default(),
    })
}

/// How it differs from what it should be, but for its keeper.
pub(super) fn drift(network: &Network, state: &State) -> Result<Vec<String>> {
    let mut drift = Vec::new();
    if state.phase != Phase::Up {
        drift.push("its making or its end was interrupted".to_owned());
        return Ok(drift);
    }
    let instance = Instance::of(&network.dir)?;
    let mut links = Links::open()?;
    let bridge = &network.bridge;
    match links.find(bridge.as_str())? {
        None => drift.push(format!("the bridge {bridge} is gone")),
        Some(device) if !device.is_ours(&instance.mark(), Some(instance.bridge_mac())) => {
            drift.push(format!("the bridge {bridge} is another's"));
        }
        Some(device) => {
            if !device.up {
                drift.push(format!("the bridge {bridge} is down"));
            }
            if !links
                .addresses(device.index)?
                .contains(&network.subnet.gateway())
            {
                drift.push(format!(
                    "the bridge {bridge} has lost the gateway's address"
                ));
            }
        }
    }
    drift.extend(super::drift::of(network, state, &mut links)?.told);
    if let Some(tunnel) = &state.tunnel {
        drift.extend(tunnel::drift(network, &instance, tunnel)?);
        if tunnel.guests.fail_closed {
            return Ok(drift);
        }
    }
    match links.default_route(&[bridge.as_str()])? {
        None => drift.push("the host has no default route any more".to_owned()),
        Some(now) => {
            let was = state.nat_interface.as_deref().unwrap_or("nothing");
            if now.interface != was {
                let interface = &now.interface;
                drift.push(format!("traffic leaves by {interface} now, not by {was}"));
            }
            let path = forwarding::forwarding_of(&now.interface.parse()?);
            if forwarding::read(&path)?.as_deref() != Some("1") {
                drift.push(format!(
                    "what comes back by {} isn't forwarded",
                    now.interface
                ));
            }
        }
    }
    Ok(drift)
}

impl fmt::Display for Status {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match (self.up, self.kept) {
            (true, true) => "up",
            (true, false) => "up, until the last VM ends",
            (false, _) => "down",
        };
        writeln!(out, "network     {state}")?;
        writeln!(
            out,
            "bridge      {} ({} in {})",
            self.bridge, self.gateway, self.subnet
        )?;
        let nat = self.nat_interface.as_deref().unwrap_or("-");
        writeln!(out, "leaves by   {nat}")?;
        if let Some(tunnel) = &self.tunnel {
            writeln!(out, "tunnel      {tunnel}")?;
        }
        write!(
            out,
            "addresses   {} leased, {} free",
            self.leases.len(),
            self.free
        )?;
        for lease in &self.leases {
            write!(
                out,
                "\n  {} {} {} {}",
                lease.ip, lease.mac, lease.tap, lease.vm
            )?;
        }
        if let Some(firewall) = &self.firewall {
            write!(out, "\n{firewall}")?;
        }
        for drift in &self.drift {
            write!(out, "\nWARN  {drift}: `smartvm network up` mends it")?;
        }
        for chain in &self.foreign {
            write!(
                out,
                "\nWARN  {} ({}) drops what guests send",
                chain.owner, chain.chain
            )?;
            write!(out, "\n      → {}", chain.admit)?;
        }
        Ok(())
    }
}
