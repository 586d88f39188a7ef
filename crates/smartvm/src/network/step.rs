//! The network's effects on the host, each with its undo.

use std::fs::File;
use std::net::Ipv4Addr;

use super::lease::Wanted;
use super::link::{Links, NewTap};
use super::namespace::Namespace;
use super::port::NewPort;
use super::route::Routing;
use super::{Network, NetworkStep, ending, firewall, forwarding, keeper, tunnel};
use crate::error::Result;
use crate::name::{IfName, MacAddress};
use crate::step::Outcome;

impl NetworkStep {
    /// Does it, for the host.
    pub(crate) fn apply(&self, network: &Network) -> Result<Outcome> {
        self.apply_for_vm(network, None, &mut Vec::new())
    }

    /// Does it; `user` is the VM's own, where it has one. What may be closed later is left `open`.
    pub(crate) fn apply_for_vm(
        &self,
        network: &Network,
        user: Option<u32>,
        open: &mut Vec<File>,
    ) -> Result<Outcome> {
        match self {
            Self::LeaseAddress {
                vm,
                iface_id,
                mac,
                firewall,
                before,
                ..
            } => {
                let lease = network.take_lease(Wanted {
                    vm,
                    iface_id,
                    mac: *mac,
                    firewall: firewall.clone(),
                    before: *before,
                })?;
                return Ok(Outcome {
                    lease: Some(lease),
                    ..Outcome::default()
                });
            }
            Self::Join { vm, .. } => network.join(vm)?,
            Self::MakeTap {
                tap,
                owner,
                bridge,
                mac,
                ip,
                isolated,
                mark,
            } => {
                let owner = owner.or(user);
                let tap = NewTap {
                    name: tap,
                    owner: owner.unwrap_or_else(|| rustix::process::geteuid().as_raw()),
                    mac: *mac,
                    mark,
                    isolated: *isolated,
                };
                open.push(network.make_port(&NewPort {
                    tap,
                    bridge,
                    ip: *ip,
                })?);
            }
            Self::ApplyFirewall { rules } => firewall::apply(rules)?,
            Self::MakeBridge {
                bridge,
                subnet,
                mac,
                mark,
            } => {
                let mut links = Links::open()?;
                links.make_bridge(bridge, *mac, mark)?;
                forwarding::no_ipv6(bridge)?;
                links.set_address(bridge, *subnet)?;
                links.set_up(bridge)?;
            }
            Self::CloseTable { guests } => Routing::open()?.close(guests)?,
            Self::LeadFrom { address, table } => Routing::open()?.lead_from(*address, *table)?,
            Self::MakeTunnel { .. } => tunnel::make(network, self)?,
            Self::RouteTunnel { routes } => Routing::open()?.lead(routes)?,
            Self::StartKeeper { executable, .. } => keeper::start(network, executable)?,
            Self::Forward { interface, .. } => {
                forwarding::write(&forwarding::forwarding_of(interface), "1")?;
            }
        }
        Ok(Outcome::default())
    }

    pub(crate) fn undo(&self, outcome: Option<&Outcome>) -> Result<()> {
        match self {
            Self::LeaseAddress {
                dir, vm, iface_id, ..
            } => {
                let known = outcome.and_then(|outcome| outcome.lease.as_ref());
                ending::give_back_lease(dir, vm, iface_id, known.map(|lease| lease.ip))
            }
            Self::Join { dir, vm } => ending::leave(dir, vm),
            Self::MakeTap {
                tap,
                mark,
                bridge,
                mac,
                ip,
                ..
            } => {
                let here = Namespace::here()?;
                let mut links = Links::again(here)?;
                links.remove(tap, mark, None)?;
                links.keep(here);
                firewall::remove_vm(bridge, &port(tap, *mac, *ip))
            }
            Self::ApplyFirewall { rules } => firewall::remove(&rules.bridge),
            Self::MakeBridge {
                bridge, mac, mark, ..
            } => Links::open()?.remove(bridge, mark, Some(*mac)),
            Self::CloseTable { guests } => Routing::open()?.reopen(guests),
            Self::LeadFrom { address, table } => {
                Routing::open()?.lead_from_no_more(*address, *table)
            }
            Self::MakeTunnel { .. } => tunnel::remove(self),
            Self::StartKeeper { dir, .. } => keeper::stop(dir),
            Self::RouteTunnel { routes } => Routing::open()?.lead_no_more(routes),
            Self::Forward {
                interface,
                was,
                bridge,
                also,
            } => {
                let mut ours = vec![interface.as_str(), bridge.as_str()];
                ours.extend(also.iter().map(IfName::as_str));
                forwarding::put_back(&forwarding::forwarding_of(interface), was, "1", &ours)
            }
        }
    }
}

fn port(tap: &IfName, mac: MacAddress, ip: Ipv4Addr) -> firewall::VmPort {
    firewall::VmPort {
        tap: tap.clone(),
        mac,
        ip,
        policy: None,
    }
}
