//! Sending guests' traffic through a WireGuard tunnel.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de};
use typed_builder::TypedBuilder;

use super::Secret;

/// Interface made for a managed tunnel, where none is named.
pub const DEFAULT_INTERFACE: &str = "svwg0";
/// Routing table for the guests' traffic, where none is named.
pub const DEFAULT_ROUTE_TABLE: u32 = 51820;

/// A tunnel: either one that smartvm makes from a configuration text, or one that exists.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
#[non_exhaustive]
pub enum WireGuardConfig {
    /// Made and removed by smartvm.
    Managed(WireGuardManaged),
    /// Someone else's: used, never altered or removed.
    Existing(WireGuardExisting),
}

/// A tunnel that smartvm makes.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema, TypedBuilder)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct WireGuardManaged {
    /// Configuration text as wg-quick takes it, with keys: a secret. Hooks (`PostUp` and the
    /// like) are refused.
    #[builder(setter(into))]
    pub config: Secret,
    /// Name of the interface, at most 15 bytes. Default: `svwg0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 15))]
    #[builder(default, setter(into, strip_option))]
    pub interface_name: Option<String>,
    /// Whether all traffic of the guests goes through the tunnel. Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(strip_option))]
    pub route_all_vm_traffic: Option<bool>,
    /// Whether traffic of the guests that would leave by another interface is dropped.
    /// Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(strip_option))]
    pub fail_closed: Option<bool>,
    /// Number of the routing table. Default: 51820.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    #[builder(default, setter(strip_option))]
    pub route_table: Option<u32>,
}

/// A tunnel that exists.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema, TypedBuilder)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct WireGuardExisting {
    /// The WireGuard interface.
    #[schemars(length(min = 1, max = 15))]
    #[builder(setter(into))]
    pub existing_interface: String,
    /// Whether all traffic of the guests goes through the tunnel. Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(strip_option))]
    pub route_all_vm_traffic: Option<bool>,
    /// Whether traffic of the guests that would leave by another interface is dropped.
    /// Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(strip_option))]
    pub fail_closed: Option<bool>,
    /// Number of the routing table. Default: 51820.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    #[builder(default, setter(strip_option))]
    pub route_table: Option<u32>,
}

impl WireGuardConfig {
    /// Name of the tunnel's interface.
    pub fn interface(&self) -> &str {
        match self {
            Self::Managed(tunnel) => tunnel
                .interface_name
                .as_deref()
                .unwrap_or(DEFAULT_INTERFACE),
            Self::Existing(tunnel) => &tunnel.existing_interface,
        }
    }

    /// Whether all traffic of the guests goes through the tunnel, with the default applied.
    pub fn route_all_vm_traffic(&self) -> bool {
        match self {
            Self::Managed(tunnel) => tunnel.route_all_vm_traffic,
            Self::Existing(tunnel) => tunnel.route_all_vm_traffic,
        }
        .unwrap_or(true)
    }

    /// Whether traffic past the tunnel is dropped, with the default applied.
    pub fn fail_closed(&self) -> bool {
        match self {
            Self::Managed(tunnel) => tunnel.fail_closed,
            Self::Existing(tunnel) => tunnel.fail_closed,
        }
        .unwrap_or(true)
    }

    /// Number of the routing table, with the default applied.
    pub fn route_table(&self) -> u32 {
        match self {
            Self::Managed(tunnel) => tunnel.route_table,
            Self::Existing(tunnel) => tunnel.route_table,
        }
        .unwrap_or(DEFAULT_ROUTE_TABLE)
    }
}

/// The fields of both forms, so that the error can say which belong together.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Fields {
    config: Option<Secret>,
    interface_name: Option<String>,
    existing_interface: Option<String>,
    route_all_vm_traffic: Option<bool>,
    fail_closed: Option<bool>,
    route_table: Option<u32>,
}

impl<'de> Deserialize<'de> for WireGuardConfig {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let fields = Fields::deserialize(from)?;
        match (fields.config, fields.existing_interface) {
            (Some(config), None) => Ok(Self::Managed(WireGuardManaged {
                config,
                interface_name: fields.interface_name,
                route_all_vm_traffic: fields.route_all_vm_traffic,
                fail_closed: fields.fail_closed,
                route_table: fields.route_table,
            })),
            (None, Some(_)) if fields.interface_name.is_some() => Err(de::Error::custom(
                "`interfaceName` names the interface made for `config`; with                  `existingInterface` nothing is made",
            )),
            (None, Some(existing_interface)) => Ok(Self::Existing(WireGuardExisting {
                existing_interface,
                route_all_vm_traffic: fields.route_all_vm_traffic,
                fail_closed: fields.fail_closed,
                route_table: fields.route_table,
            })),
            (Some(_), Some(_)) => Err(de::Error::custom(
                "`config` and `existingInterface` exclude each other",
            )),
            (None, None) => Err(de::Error::custom(
                "either `config` or `existingInterface` is required",
            )),
        }
    }
}
