//! `/machine-config`: before boot only.

use serde::Serialize;

use crate::error::Result;
use crate::firecracker::client::{Method, Request};
use crate::spec::{HugePages, MachineConfig};

/// Processors and memory.
#[derive(Debug, Serialize)]
pub struct MachineConfigBody<'a> {
    vcpu_count: u8,
    mem_size_mib: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    smt: Option<bool>,
    // Deprecated since 1.5, and still the only way to ask for a template by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu_template: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    track_dirty_pages: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    huge_pages: Option<HugePages>,
}

impl<'a> From<&'a MachineConfig> for MachineConfigBody<'a> {
    fn from(machine: &'a MachineConfig) -> Self {
        Self {
            vcpu_count: machine.vcpu_count,
            mem_size_mib: machine.mem_size_mib,
            smt: machine.smt,
            cpu_template: machine.cpu_template.as_deref(),
            track_dirty_pages: machine.track_dirty_pages,
            huge_pages: machine.huge_pages,
        }
    }
}

impl MachineConfigBody<'_> {
    pub(super) fn request(&self) -> Result<Request> {
        Request::new(Method::Put, "/machine-config", self)
    }
}
