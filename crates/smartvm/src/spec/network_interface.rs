//! Network interfaces.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use typed_builder::TypedBuilder;

use super::RateLimiter;

/// A network interface of the guest, connected to a TAP device of the host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, TypedBuilder)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct NetworkInterface {
    /// Name of the interface, unique in the microVM: letters, digits and `_`, 1 to 64. The
    /// guest doesn't see it.
    #[builder(setter(into))]
    pub iface_id: String,
    /// TAP device on the host, at most 15 bytes. It must exist, and is neither altered nor
    /// removed. Default: a TAP device is made for this microVM, and removed with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 15))]
    #[builder(default, setter(into, strip_option))]
    pub host_dev_name: Option<String>,
    /// MAC address of the guest, unicast. Default: one that follows from the lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(into, strip_option))]
    pub guest_mac: Option<String>,
    /// Largest packet in bytes, 68 to 65535, that the guest's driver is told to use. Needs
    /// Firecracker 1.16. Default: the guest's own. An addition to the interfaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 68))]
    #[builder(default, setter(strip_option))]
    pub mtu: Option<u16>,
    /// Limits on what the guest receives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(strip_option))]
    pub rx_rate_limiter: Option<RateLimiter>,
    /// Limits on what the guest sends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(strip_option))]
    pub tx_rate_limiter: Option<RateLimiter>,
}
