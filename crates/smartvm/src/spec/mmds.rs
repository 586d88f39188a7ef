//! The metadata service inside the guest.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use typed_builder::TypedBuilder;

/// The microVM metadata service (MMDS): an HTTP server that the guest sees at
/// 169.254.169.254.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, TypedBuilder)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct Mmds {
    /// Protocol version. Default: `V2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(strip_option))]
    pub version: Option<MmdsVersion>,
    /// The `ifaceId`s of the network interfaces that the service answers on; at least one.
    #[schemars(length(min = 1))]
    #[builder(setter(into))]
    pub network_interfaces: Vec<String>,
    /// Address of the service, link-local (169.254.1.0 to 169.254.254.255). Default:
    /// 169.254.169.254. An addition to the interfaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(into, strip_option))]
    pub ipv4_address: Option<String>,
    /// Whether answers are plain text whatever the guest accepts, as EC2's are. Needs
    /// Firecracker 1.13. Default: false. An addition to the interfaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(strip_option))]
    pub imds_compat: Option<bool>,
}

/// Version of the metadata protocol.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub enum MmdsVersion {
    /// Requests without a session; deprecated by Firecracker.
    V1,
    /// Requests carry a session token.
    #[default]
    V2,
}
