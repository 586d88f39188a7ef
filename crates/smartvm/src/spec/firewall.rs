//! What guests may reach.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use typed_builder::TypedBuilder;

/// Firewall of a subnet, or of one microVM.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema, TypedBuilder)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct FirewallConfig {
    /// Rules for what leaves the subnet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(strip_option))]
    pub egress: Option<FirewallEgress>,
}

/// Ordered rules for outgoing traffic; the first that matches decides.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema, TypedBuilder)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct FirewallEgress {
    /// What happens to traffic that no rule matches. Default: `allow`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(strip_option))]
    pub default_action: Option<FirewallAction>,
    /// The rules, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[builder(default, setter(into))]
    pub rules: Vec<FirewallRule>,
}

/// One rule for outgoing traffic.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, TypedBuilder)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct FirewallRule {
    /// What happens to traffic that matches.
    pub action: FirewallAction,
    /// Destination: an IPv4 address, or a network in CIDR notation. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(into, strip_option))]
    pub to: Option<String>,
    /// Protocol. Default: `all`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(strip_option))]
    pub protocol: Option<FirewallProtocol>,
    /// Destination port or ports, 1 to 65535, for `tcp` and `udp` only. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(into, strip_option))]
    pub ports: Option<FirewallPorts>,
    /// A label for people, at most 128 bytes, without control characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    #[builder(default, setter(into, strip_option))]
    pub comment: Option<String>,
}

/// What happens to traffic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum FirewallAction {
    /// It passes.
    #[default]
    Allow,
    /// It is dropped.
    Deny,
}

/// The protocol that a rule matches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum FirewallProtocol {
    /// Any.
    #[default]
    All,
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP.
    Icmp,
}

/// One port, or a list of ports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[non_exhaustive]
pub enum FirewallPorts {
    /// One port.
    One(u32),
    /// Several ports; not an empty list.
    Many(Vec<u32>),
}

impl FirewallPorts {
    /// The ports, however they were written.
    pub fn as_slice(&self) -> &[u32] {
        match self {
            Self::One(port) => std::slice::from_ref(port),
            Self::Many(ports) => ports,
        }
    }
}

impl From<u32> for FirewallPorts {
    fn from(port: u32) -> Self {
        Self::One(port)
    }
}

impl From<Vec<u32>> for FirewallPorts {
    fn from(ports: Vec<u32>) -> Self {
        Self::Many(ports)
    }
}

impl<const N: usize> From<[u32; N]> for FirewallPorts {
    fn from(ports: [u32; N]) -> Self {
        Self::Many(ports.into())
    }
}
