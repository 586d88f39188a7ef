//! Limits on the rate of a device's traffic.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use typed_builder::TypedBuilder;

/// Limits for one device, or for one direction of a network interface. A bucket that is
/// absent doesn't limit.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema, TypedBuilder)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct RateLimiter {
    /// Limit on bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(strip_option))]
    pub bandwidth: Option<TokenBucket>,
    /// Limit on operations: requests of a drive, packets of a network interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(strip_option))]
    pub ops: Option<TokenBucket>,
}

/// A token bucket: `size` tokens are available, and an empty bucket is full again after
/// `refillTime`. The lasting rate is `size / refillTime`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, TypedBuilder)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct TokenBucket {
    /// Tokens in the full bucket, at least 1: bytes for `bandwidth`, operations for `ops`.
    #[schemars(range(min = 1))]
    pub size: u64,
    /// Tokens available once, at the start, on top of `size`. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(strip_option))]
    pub one_time_burst: Option<u64>,
    /// Time in milliseconds that refills an empty bucket, at least 1.
    #[schemars(range(min = 1))]
    pub refill_time: u64,
}
