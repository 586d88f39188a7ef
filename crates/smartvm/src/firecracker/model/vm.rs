//! `/vm`: after boot only.

use serde::Serialize;

use crate::error::Result;
use crate::firecracker::client::{Method, Request};

/// What the guest's processors are to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum VmState {
    /// To stand still.
    Paused,
    /// To go on.
    Resumed,
}

/// The guest's processors.
#[derive(Debug, Serialize)]
pub struct VmBody {
    /// What they are to do.
    pub state: VmState,
}

impl VmBody {
    /// The request.
    pub fn request(&self) -> Result<Request> {
        Request::new(Method::Patch, "/vm", self)
    }
}
