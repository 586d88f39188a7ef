//! Block devices.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use typed_builder::TypedBuilder;

use super::{RateLimiter, RuntimeOptions};

/// A block device, backed by a file of the host or served by a vhost-user process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, TypedBuilder)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct Drive {
    /// Name of the drive, unique in the microVM: letters, digits and `_`, 1 to 64.
    #[builder(setter(into))]
    pub drive_id: String,
    /// Disk image (or block device) on the host. Required, unless `socket` is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(into, strip_option))]
    pub path_on_host: Option<PathBuf>,
    /// Whether this is the root device; at most one drive is.
    pub is_root_device: bool,
    /// Whether the guest may only read. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(strip_option))]
    pub is_read_only: Option<bool>,
    /// PARTUUID of the root partition, for a root drive that is partitioned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(into, strip_option))]
    pub part_uuid: Option<String>,
    /// What a flush by the guest does. Default: `Unsafe`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(strip_option))]
    pub cache_type: Option<CacheType>,
    /// Limits on the drive's traffic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(strip_option))]
    pub rate_limiter: Option<RateLimiter>,
    /// How Firecracker does the I/O: `Sync`, or `Async` (io_uring; host kernel 5.10.51 or
    /// newer). Default: `Sync`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(strip_option))]
    pub io_engine: Option<IoEngine>,
    /// Whether the image is copied for this microVM alone, and the copy deleted at the end.
    /// Default: what `ephemeralWritableDrives` says for a writable drive, no for a read-only
    /// one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(strip_option))]
    pub ephemeral: Option<bool>,
    /// Unix socket of a vhost-user block device, instead of `pathOnHost`. Such a drive takes
    /// no `isReadOnly`, `rateLimiter`, `ioEngine` or `ephemeral`. Needs Firecracker 1.6.
    /// An addition to the interfaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(into, strip_option))]
    pub socket: Option<PathBuf>,
}

impl Drive {
    /// Whether the guest may only read, with the default applied.
    pub fn read_only(&self) -> bool {
        self.is_read_only.unwrap_or(false)
    }

    /// Whether this microVM gets its own copy of the image. The drive's own `ephemeral` wins
    /// over the global option; a vhost-user drive is never copied.
    pub fn staged(&self, options: &RuntimeOptions) -> bool {
        self.path_on_host.is_some()
            && self
                .ephemeral
                .unwrap_or(!self.read_only() && options.ephemeral_writable_drives())
    }
}

/// How Firecracker reads and writes a drive's file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub enum IoEngine {
    /// One request after the other.
    #[default]
    Sync,
    /// By io_uring: many at a time.
    Async,
}

/// What a flush by the guest does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub enum CacheType {
    /// Nothing: quicker, and a crash of the host may lose what the guest believes written.
    #[default]
    Unsafe,
    /// It reaches the host's disk.
    Writeback,
}
