//! A TAP device that was leased for a microVM.

use std::net::Ipv4Addr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use typed_builder::TypedBuilder;

/// A TAP device and the addresses that go with it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, TypedBuilder)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct TapDevice {
    /// Name of the TAP device on the host.
    #[builder(setter(into))]
    pub tap_name: String,
    /// IPv4 address of the guest.
    #[builder(setter(into))]
    pub guest_ip: Ipv4Addr,
    /// Address of the gateway, which is the bridge's.
    #[builder(setter(into))]
    pub gateway_ip: Ipv4Addr,
    /// Mask of the subnet, such as 255.255.255.0.
    #[builder(setter(into))]
    pub subnet_mask: Ipv4Addr,
    /// MAC address of the guest.
    #[builder(setter(into))]
    pub mac: String,
}
