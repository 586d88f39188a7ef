//! Rate limiters, as parts of other resources.

use serde::Serialize;

use crate::spec::{RateLimiter, TokenBucket};

/// Limits on bytes and on operations. In an update, a bucket that is absent stays as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct RateLimiterBody {
    /// On bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<TokenBucketBody>,
    /// On operations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ops: Option<TokenBucketBody>,
}

/// A token bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct TokenBucketBody {
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    one_time_burst: Option<u64>,
    refill_time: u64,
}

impl TokenBucketBody {
    /// A bucket that doesn't limit: how an update removes one.
    pub const NONE: Self = Self {
        size: 0,
        one_time_burst: None,
        refill_time: 0,
    };
}

impl From<&TokenBucket> for TokenBucketBody {
    fn from(bucket: &TokenBucket) -> Self {
        Self {
            size: bucket.size,
            one_time_burst: bucket.one_time_burst,
            refill_time: bucket.refill_time,
        }
    }
}

impl From<&RateLimiter> for RateLimiterBody {
    fn from(limiter: &RateLimiter) -> Self {
        Self {
            bandwidth: limiter.bandwidth.as_ref().map(Into::into),
            ops: limiter.ops.as_ref().map(Into::into),
        }
    }
}

impl RateLimiterBody {
    /// Limits as an update that replaces whatever there is: buckets that aren't given are
    /// taken away.
    pub fn replacing(limiter: Option<&RateLimiter>) -> Self {
        let bucket = |bucket: Option<&TokenBucket>| {
            Some(bucket.map_or(TokenBucketBody::NONE, TokenBucketBody::from))
        };
        Self {
            bandwidth: bucket(limiter.and_then(|limiter| limiter.bandwidth.as_ref())),
            ops: bucket(limiter.and_then(|limiter| limiter.ops.as_ref())),
        }
    }
}
