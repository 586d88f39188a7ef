//! The network's effects on the host, as data: what does and undoes them is the network's.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::firewall::Ruleset;
use super::{GuestTable, Maker, Subnet, TunnelRoutes};
use crate::name::{IfName, MacAddress, VmId};
use crate::spec::FirewallEgress;

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
        rules: Ruleset,
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
