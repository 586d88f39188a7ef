//! The source of random numbers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use typed_builder::TypedBuilder;

use super::RateLimiter;

/// A virtio entropy device, fed from the host's random numbers. Needs Firecracker 1.4. An
/// addition to the interfaces.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema, TypedBuilder)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct Entropy {
    /// Limits on what the guest draws.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(strip_option))]
    pub rate_limiter: Option<RateLimiter>,
}
