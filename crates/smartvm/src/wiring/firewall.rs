//! What the firewall of a bridge is made of.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::name::{IfName, MacAddress};
use crate::spec::{FirewallEgress, HostService};

/// All that the firewall of one bridge is made of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ruleset {
    /// The guests' bridge, after which the tables are named.
    pub bridge: IfName,
    /// The guests' network.
    pub subnet: Ipv4Net,
    /// The host's address on the bridge.
    pub gateway: Ipv4Addr,
    /// Where guests' traffic is masqueraded, beside the tunnel; `None`: wherever it leaves.
    pub nat_interface: Option<IfName>,
    /// The WireGuard interface.
    pub tunnel: Option<Tunnel>,
    /// Whether guests may reach one another.
    pub guests_may_talk: bool,
    /// Services of the host, at the gateway's address, that guests may reach.
    pub host_services: Vec<HostService>,
    /// What guests may reach outside; `None`: everything.
    pub egress: Option<FirewallEgress>,
    /// The guests.
    pub vms: Vec<VmPort>,
    /// How the names of guests' TAP devices begin, and of no others. What comes in by one itself
    /// and not by the bridge goes nowhere.
    #[serde(default)]
    pub taps: Vec<String>,
}

impl Ruleset {
    /// The rules of a bridge whose guests may reach everything but the host and one another.
    pub fn new(bridge: IfName, subnet: Ipv4Net, gateway: Ipv4Addr) -> Self {
        Self {
            bridge,
            subnet,
            gateway,
            nat_interface: None,
            tunnel: None,
            guests_may_talk: false,
            host_services: Vec::new(),
            egress: None,
            vms: Vec::new(),
            taps: Vec::new(),
        }
    }
}

/// The tunnel, as far as the firewall has to do with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tunnel {
    /// Its interface, which need not be there yet.
    pub interface: IfName,
    /// Its MTU in bytes, to which segments are clamped.
    pub mtu: u16,
    /// Whether nothing of the guests may leave by another interface.
    pub fail_closed: bool,
}

/// One guest's port of the bridge: no other address may be seen on it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VmPort {
    /// The TAP device.
    pub tap: IfName,
    /// The guest's MAC address.
    pub mac: MacAddress,
    /// The guest's IP address.
    pub ip: Ipv4Addr,
    /// What this guest alone may reach: a deny is final, an allow goes on to the subnet's.
    pub policy: Option<FirewallEgress>,
}
