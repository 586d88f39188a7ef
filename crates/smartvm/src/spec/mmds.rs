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
