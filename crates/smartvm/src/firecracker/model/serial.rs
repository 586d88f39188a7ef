//! `/serial` (since 1.14): before boot only.
//!
//! Its `serial_out_path` is never sent: it would take the output away from the console that
//! the keeper reads, and with it the log and the signs of a panic. The keeper writes the
//! user's file itself, for every version.

use serde::Serialize;

use super::TokenBucketBody;
use crate::error::Result;
use crate::firecracker::client::{Method, Request};

/// The serial console.
#[derive(Debug, Serialize)]
pub struct SerialBody {
    // Since 1.16.
    pub(super) rate_limiter: TokenBucketBody,
}

impl SerialBody {
    pub(super) fn request(&self) -> Result<Request> {
        Request::new(Method::Put, "/serial", self)
    }
}
