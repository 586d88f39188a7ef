//! The network's effects on the host, each with its undo.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::lease::Wanted;
use super::link::{Links, NewTap};
use super::port::NewPort;
use super::route::{GuestTable, Routing, TunnelRoutes};
use super::state::namespace;
use super::subnet::Subnet;
use super::wireguard::Maker;
use super::{Network, ending, firewall, forwarding, keeper, tunnel};
use crate::error::Result;
use crate::name::{IfName, MacAddress, VmId};
use crate::spec::FirewallEgress;
use crate::step::Outcome;

/// One effect on the host's network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(
    tag = "network",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
#[non_exhaustive]
pub enum NetworkStep {
    /// Leases an address and the name of a TAP device for an interface of a VM.
    LeaseAddress {
        /// The network's directory.
        dir: PathBuf,
        /// The VM.
        vm: VmId,
        /// The interface.
        iface_id: String,
        /// The guest's MAC address, where the spec names one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mac: Option<MacAddress>,
        /// What this guest alone may reach.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        firewall: Option<FirewallEgress>,
        /// The address that it had in another life: leased again if it is free.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        before: Option<Ipv4Addr>,
    },
    /// Counts the VM among the network's users; makes the network if it is the first.
    Join {
        /// The network's directory.
        dir: PathBuf,
        /// The VM.
        vm: VmId,
    },
    /// Makes a persistent TAP device on the bridge.
    MakeTap {
        /// Its name.
        tap: IfName,
        /// The user that it belongs to; `None`: the VM's own, else the one who makes it.
        owner: Option<u32>,
        /// The bridge.
        bridge: IfName,
        /// The guest's MAC address.
        mac: MacAddress,
        /// The guest's address: no other passes.
        ip: Ipv4Addr,
        /// Whether it reaches no other guest's.
        #[serde(default = "isolated")]
        isolated: bool,
        /// Its alias, by which it is ours.
        mark: String,
    },
    /// Replaces our nftables tables.
    ApplyFirewall {
        /// What they say.
        rules: firewall::Ruleset,
    },
    /// Makes the bridge, with the gateway's address.
    MakeBridge {
        /// Its name.
        bridge: IfName,
        /// The guests' subnet.
        subnet: Subnet,
        /// Its MAC address, by which it is ours from its first moment.
        mac: MacAddress,
        /// Its alias.
        mark: String,
    },
    /// Gives guests' traffic a routing table of its own, closed where that is asked for.
    CloseTable {
        /// Whose traffic, and which table.
        guests: GuestTable,
    },
    /// Leads what this host sends from an address of another's tunnel into it, too, where no
    /// route of the host's own leads to its destination in particular.
    LeadFrom {
        /// The address.
        address: Ipv4Addr,
        /// The table of guests' traffic.
        table: u32,
    },
    /// Makes the tunnel. Its keys are in the options alone.
    MakeTunnel {
        /// The network's directory.
        dir: PathBuf,
        /// Its interface.
        interface: IfName,
        /// What that is called until it is marked.
        nameless: IfName,
        /// Its alias, by which it is ours.
        mark: String,
        /// MTU in bytes.
        mtu: u16,
        /// Who makes it work.
        maker: Maker,
        /// Where its peers are, in their order.
        endpoints: Vec<Option<SocketAddr>>,
    },
    /// Leads guests' traffic into the tunnel.
    RouteTunnel {
        /// What is led there.
        routes: TunnelRoutes,
    },
    /// Starts the network's keeper.
    StartKeeper {
        /// The network's directory.
        dir: PathBuf,
        /// The smartvm command.
        executable: PathBuf,
    },
    /// Lets what comes in by an interface be forwarded.
    Forward {
        /// The interface.
        interface: IfName,
        /// What the setting was.
        was: String,
        /// The bridge.
        bridge: IfName,
        /// What else forwards for the network, beside the bridge.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        also: Vec<IfName>,
    },
}

impl NetworkStep {
    /// Does it; `user` is the VM's own, where it has one.
    pub(crate) fn apply(&self, network: &Network, user: Option<u32>) -> Result<Outcome> {
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
                network.make_port(&NewPort {
                    tap,
                    bridge,
                    ip: *ip,
                })?;
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
                let here = namespace()?;
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

    pub(crate) fn undo_in_words(&self) -> &'static str {
        match self {
            Self::LeaseAddress { .. } => "give the address back",
            Self::Join { .. } => "leave the network; the last one gives it back",
            Self::MakeTap { .. } | Self::MakeBridge { .. } | Self::MakeTunnel { .. } => {
                "remove the device"
            }
            Self::LeadFrom { .. } => "remove the rules",
            Self::CloseTable { .. } => "remove the rules, and empty the table",
            Self::RouteTunnel { .. } => "remove the routes",
            Self::StartKeeper { .. } => "end it",
            Self::ApplyFirewall { .. } => "remove the tables",
            Self::Forward { .. } => "put it back, where nobody else needs it",
        }
    }
}

impl fmt::Display for NetworkStep {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LeaseAddress {
                iface_id, firewall, ..
            } => {
                write!(out, "lease an address for interface {iface_id}")?;
                match firewall {
                    Some(egress) => write!(out, ", with {} rules of its own", egress.rules.len()),
                    None => Ok(()),
                }
            }
            Self::Join { .. } => write!(out, "join the network, or make it"),
            Self::MakeTap { tap, bridge, .. } => write!(out, "make TAP {tap} on bridge {bridge}"),
            Self::ApplyFirewall { .. } => write!(out, "replace our nftables tables"),
            Self::MakeBridge { bridge, subnet, .. } => {
                write!(out, "make bridge {bridge} for {subnet}")
            }
            Self::CloseTable { guests } if guests.fail_closed => {
                write!(out, "close routing table {} for guests", guests.table)
            }
            Self::CloseTable { guests } => {
                write!(out, "give guests routing table {}", guests.table)
            }
            Self::LeadFrom { address, .. } => {
                write!(out, "lead what is sent from {address} into the tunnel")
            }
            Self::MakeTunnel {
                interface, maker, ..
            } => write!(out, "make tunnel {interface} ({})", maker.name()),
            Self::RouteTunnel { routes } => {
                write!(out, "lead guests' traffic into {}", routes.interface)
            }
            Self::StartKeeper { .. } => write!(out, "start the network's keeper"),
            Self::Forward { interface, .. } => write!(out, "forward what comes in by {interface}"),
        }
    }
}

/// What TAP devices were before there was a choice.
fn isolated() -> bool {
    true
}

fn port(tap: &IfName, mac: MacAddress, ip: Ipv4Addr) -> firewall::VmPort {
    firewall::VmPort {
        tap: tap.clone(),
        mac,
        ip,
        policy: None,
    }
}
