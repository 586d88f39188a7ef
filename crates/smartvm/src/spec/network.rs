//! Options of the host's network for microVMs.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use typed_builder::TypedBuilder;

use super::{FirewallConfig, SmartVmOptions, WireGuardConfig};

/// Bridge, where none is named.
pub const DEFAULT_BRIDGE: &str = "svbr0";
/// Subnet, where none is given.
pub const DEFAULT_SUBNET: &str = "172.30.0.0/24";

/// Options of the host's network for microVMs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema, TypedBuilder)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct NetworkManagerOptions {
    /// Bridge for the microVMs, at most 15 bytes. Default: `svbr0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 15))]
    #[builder(default, setter(into, strip_option))]
    pub bridge_name: Option<String>,
    /// IPv4 subnet of the microVMs in CIDR notation, with a prefix of 1 to 30. Default:
    /// `172.30.0.0/24`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(into, strip_option))]
    pub subnet: Option<String>,
    /// What guests may reach. Default: everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(into, strip_option))]
    pub firewall: Option<FirewallConfig>,
    /// Whether guests may reach one another. Default: false. An addition to the interfaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(strip_option))]
    pub guests_may_talk: Option<bool>,
    /// Services of the host that guests may reach at the gateway's address: `tcp/8080`,
    /// `udp/53`, or a name (dns, http, https, ntp, ssh). Default: none. An addition to the
    /// interfaces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[builder(default, setter(into))]
    pub host_services: Vec<String>,
    /// Tunnel for the guests' traffic. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(into, strip_option))]
    pub wireguard: Option<WireGuardConfig>,
}

impl NetworkManagerOptions {
    /// The bridge's name, with the default applied.
    pub fn bridge_name(&self) -> &str {
        self.bridge_name.as_deref().unwrap_or(DEFAULT_BRIDGE)
    }

    /// The subnet, with the default applied.
    pub fn subnet(&self) -> &str {
        self.subnet.as_deref().unwrap_or(DEFAULT_SUBNET)
    }
}

impl From<&SmartVmOptions> for NetworkManagerOptions {
    fn from(options: &SmartVmOptions) -> Self {
        Self {
            bridge_name: options.bridge_name.clone(),
            subnet: options.subnet.clone(),
            firewall: options.firewall.clone(),
            guests_may_talk: options.guests_may_talk,
            host_services: options.host_services.clone(),
            wireguard: options.wireguard.clone(),
        }
    }
}
