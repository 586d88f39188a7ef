//! `/vsock`: before boot only.

use serde::Serialize;

use crate::error::Result;
use crate::firecracker::client::{Method, Request};

/// Sockets between host and guest.
#[derive(Debug, Serialize)]
pub struct VsockBody<'a> {
    pub(super) guest_cid: u32,
    pub(super) uds_path: &'a str,
}

impl VsockBody<'_> {
    pub(super) fn request(&self) -> Result<Request> {
        Request::new(Method::Put, "/vsock", self)
    }
}
