//! `/entropy`: before boot only.

use serde::Serialize;

use super::RateLimiterBody;
use crate::error::Result;
use crate::firecracker::client::{Method, Request};
use crate::spec::Entropy;

/// The source of random numbers.
#[derive(Debug, Serialize)]
pub struct EntropyBody {
    #[serde(skip_serializing_if = "Option::is_none")]
    rate_limiter: Option<RateLimiterBody>,
}

impl From<&Entropy> for EntropyBody {
    fn from(entropy: &Entropy) -> Self {
        Self {
            rate_limiter: entropy.rate_limiter.as_ref().map(Into::into),
        }
    }
}

impl EntropyBody {
    pub(super) fn request(&self) -> Result<Request> {
        Request::new(Method::Put, "/entropy", self)
    }
}
