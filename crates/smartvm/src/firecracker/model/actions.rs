//! `/actions`.

use serde::Serialize;

use crate::error::Result;
use crate::firecracker::client::{Method, Request};

/// What Firecracker can be told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "action_type")]
pub enum Action {
    /// Boot the guest.
    InstanceStart,
    /// Press Ctrl-Alt-Del; x86_64 only.
    SendCtrlAltDel,
    /// Write the metrics now.
    FlushMetrics,
}

impl Action {
    /// The request.
    pub fn request(self) -> Result<Request> {
        Request::new(Method::Put, "/actions", &self)
    }
}
