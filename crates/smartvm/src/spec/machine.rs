//! The virtual hardware that isn't a device.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use typed_builder::TypedBuilder;

/// Processors and memory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, TypedBuilder)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct MachineConfig {
    /// Number of virtual processors, 1 to 32. With `smt`, 1 or an even number.
    #[schemars(range(min = 1, max = 32))]
    pub vcpu_count: u8,
    /// Memory in MiB, at least 1.
    #[schemars(range(min = 1))]
    pub mem_size_mib: u64,
    /// Simultaneous multi-threading: two virtual processors share a core. x86_64 only.
    /// Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(strip_option))]
    pub smt: Option<bool>,
    /// A CPU template, which hides processor features so that guests see the same on different
    /// hosts: `C3`, `T2`, `T2S`, `T2CL` (Intel), `T2A` (AMD), `V1N1` (aarch64) or
    /// `None`. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(into, strip_option))]
    pub cpu_template: Option<String>,
    /// Record which memory pages were written, as diff snapshots need. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(strip_option))]
    pub track_dirty_pages: Option<bool>,
    /// Back the guest's memory with huge pages of the host. Needs Firecracker 1.7 and a
    /// sufficient pool on the host. Default: `None`. An addition to the interfaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(strip_option))]
    pub huge_pages: Option<HugePages>,
}

/// The host pages that back a guest's memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub enum HugePages {
    /// Ordinary pages.
    #[default]
    None,
    /// Huge pages of 2 MiB; the memory size must be even.
    #[serde(rename = "2M")]
    TwoMib,
}
