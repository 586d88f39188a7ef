//! What a VM has of the network.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::name::{IfName, MacAddress, VmId};
use crate::spec::FirewallEgress;

/// What one interface of a VM has of the network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Lease {
    /// The VM.
    pub vm: VmId,
    /// The interface's id in the VM's spec.
    pub iface_id: String,
    /// The TAP device on the host.
    pub tap: IfName,
    /// The guest's address.
    pub ip: Ipv4Addr,
    /// The guest's MAC address: the spec's, or one that follows from the IP address.
    pub mac: MacAddress,
    /// What this guest alone may reach; none: what the subnet's rules allow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firewall: Option<FirewallEgress>,
}
