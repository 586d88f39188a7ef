//! What the user asks for: the interfaces, as data.
//!
//! One file per resource. The types take whatever has the right shape, a `String` for an id,
//! a `PathBuf` for a path, so that [`validate`](crate::validate) can report every problem of a
//! spec at once; they touch nothing outside themselves. Field names in files are camelCase,
//! unknown fields are refused, absent ones stay absent when written again.

mod arch;
mod balloon;
mod base_image;
mod boot_source;
mod bundle;
mod document;
mod drive;
mod entropy;
mod firewall;
mod guess;
mod jail;
pub(crate) mod load;
mod logger;
mod machine;
mod metrics;
mod microvm;
mod mmds;
pub mod network;
mod network_interface;
pub mod options;
mod problem;
mod rate_limiter;
pub mod schema;
mod secret;
mod serial;
mod service;
mod shape;
mod snapshot;
mod tap;
mod vsock;
pub mod wg_quick;
pub mod wireguard;

pub use arch::Arch;
pub use balloon::Balloon;
pub use base_image::{
    BaseImageManagerOptions, BaseImagePreset, EnsureBaseImageOptions, RootfsType,
};
pub use boot_source::BootSource;
pub use bundle::{
    BaseImageBundle, BaseImageChecksums, BaseImageSizes, BaseImageSource, BaseImageSourceKind,
};
pub use drive::{CacheType, Drive, IoEngine};
pub use entropy::Entropy;
pub use firewall::{
    FirewallAction, FirewallConfig, FirewallEgress, FirewallPorts, FirewallProtocol, FirewallRule,
};
pub use jail::{CgroupLimits, IdRange, IoLimit, Jail, JailMode, ResourceLimits};
pub use load::{Format, MAX_DOCUMENT_BYTES, load, load_file};
pub use logger::{LogLevel, Logger};
pub use machine::{HugePages, MachineConfig};
pub use metrics::Metrics;
pub use microvm::{Lifetime, MicroVmSpec};
pub use mmds::{Mmds, MmdsVersion};
pub use network::NetworkManagerOptions;
pub use network_interface::NetworkInterface;
pub use options::{RuntimeOptions, SmartVmOptions};
pub use problem::{Problem, Problems};
pub use rate_limiter::{RateLimiter, TokenBucket};
pub use secret::Secret;
pub use serial::Serial;
pub use service::{HostService, Transport};
pub use snapshot::{SnapshotCreateParams, SnapshotLoadParams, SnapshotType};
pub use tap::TapDevice;
pub use vsock::Vsock;
pub use wireguard::{WireGuardConfig, WireGuardExisting, WireGuardManaged};
