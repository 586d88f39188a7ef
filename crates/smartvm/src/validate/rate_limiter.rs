//! Rate limiters: Firecracker takes a bucket that can't limit as "no limit", in silence.

use super::report::Report;
use crate::spec::{RateLimiter, TokenBucket};

/// Firecracker counts the refill time in nanoseconds, in 64 bits; beyond that, no limit.
const MAX_REFILL_MS: u64 = u64::MAX / 1_000_000;

pub(super) fn check(limiter: Option<&RateLimiter>, path: &str, report: &mut Report) {
    let Some(limiter) = limiter else { return };
    report.demand(
        limiter.bandwidth.is_some() || limiter.ops.is_some(),
        path,
        || "limits nothing".into(),
        "`bandwidth`, `ops` or both; leave it out for no limit",
    );
    bucket(
        limiter.bandwidth.as_ref(),
        &format!("{path}.bandwidth"),
        report,
    );
    bucket(limiter.ops.as_ref(), &format!("{path}.ops"), report);
}

pub(super) fn bucket(bucket: Option<&TokenBucket>, path: &str, report: &mut Report) {
    let Some(bucket) = bucket else { return };
    report.demand(
        bucket.size > 0,
        format!("{path}.size"),
        || "is 0, which Firecracker takes as no limit at all".into(),
        "1 or more; leave the bucket out for no limit",
    );
    report.demand(
        (1..=MAX_REFILL_MS).contains(&bucket.refill_time),
        format!("{path}.refillTime"),
        || {
            format!(
                "is {}, which Firecracker takes as no limit at all",
                bucket.refill_time
            )
        },
        "1 to 18446744073709 milliseconds; leave the bucket out for no limit",
    );
}
