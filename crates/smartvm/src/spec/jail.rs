//! How Firecracker is confined.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use typed_builder::TypedBuilder;

/// Confinement of the Firecracker process by its jailer: a chroot, a user of its own, and
/// limits. Without `jail`, the library starts Firecracker unconfined, and the command line
/// does as with `auto`. An addition to the interfaces.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema, TypedBuilder)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct Jail {
    /// Whether to use the jailer. Default: `auto`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(strip_option))]
    pub mode: Option<JailMode>,
    /// User ids to take from, one for each microVM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(into, strip_option))]
    pub uid_range: Option<IdRange>,
    /// Group ids to take from, one for each microVM. Default: as `uidRange`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(into, strip_option))]
    pub gid_range: Option<IdRange>,
    /// Directory for chroots, on a file system that allows device nodes and execution.
    /// Default: `<dataDir>/jail`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(into, strip_option))]
    pub chroot_base: Option<PathBuf>,
    /// Limits by cgroup v2. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(into, strip_option))]
    pub cgroup: Option<CgroupLimits>,
    /// Limits on the process. Default: the jailer's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(into, strip_option))]
    pub resource_limits: Option<ResourceLimits>,
    /// Whether Firecracker runs in its own process namespace. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(strip_option))]
    pub new_pid_ns: Option<bool>,
    /// File of the network namespace to run in, such as `/run/netns/blue`. Default: the
    /// caller's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(into, strip_option))]
    pub net_ns: Option<PathBuf>,
}

/// Whether to use the jailer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum JailMode {
    /// Yes; where that can't be done, the microVM isn't started.
    Required,
    /// With root rights yes, without them no, with a warning.
    #[default]
    Auto,
    /// No.
    Off,
}

/// A range of user or group ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, TypedBuilder)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct IdRange {
    /// First id, at least 1: root isn't confinement.
    #[schemars(range(min = 1))]
    pub first: u32,
    /// Number of ids, at least 1.
    #[schemars(range(min = 1))]
    pub count: u32,
}

/// Limits by cgroup v2; an absent one doesn't limit.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema, TypedBuilder)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct CgroupLimits {
    /// Processor time, in processors: 1.5 is one and a half. At least 0.01.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.01))]
    #[builder(default, setter(strip_option))]
    pub cpus: Option<f64>,
    /// Memory in MiB, that of the guest and Firecracker's own together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    #[builder(default, setter(strip_option))]
    pub memory_mib: Option<u64>,
    /// Number of processes and threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    #[builder(default, setter(strip_option))]
    pub pids: Option<u64>,
    /// Limits on block devices of the host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[builder(default, setter(into))]
    pub io: Vec<IoLimit>,
}

/// Limits on one block device of the host; an absent one doesn't limit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, TypedBuilder)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct IoLimit {
    /// The block device, such as `/dev/nvme0n1`.
    #[builder(setter(into))]
    pub device: PathBuf,
    /// Bytes read in a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    #[builder(default, setter(strip_option))]
    pub read_bytes_per_s: Option<u64>,
    /// Bytes written in a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    #[builder(default, setter(strip_option))]
    pub write_bytes_per_s: Option<u64>,
    /// Read operations in a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    #[builder(default, setter(strip_option))]
    pub read_ops_per_s: Option<u64>,
    /// Write operations in a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    #[builder(default, setter(strip_option))]
    pub write_ops_per_s: Option<u64>,
}

/// Limits on the Firecracker process; an absent one is the jailer's default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema, TypedBuilder)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct ResourceLimits {
    /// Largest file it may write, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(strip_option))]
    pub file_size_bytes: Option<u64>,
    /// Open file descriptors. Default: 2048.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    #[builder(default, setter(strip_option))]
    pub open_files: Option<u64>,
}
