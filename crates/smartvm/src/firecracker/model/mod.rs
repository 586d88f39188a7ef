//! What goes over Firecracker's API, a file for each resource in Firecracker's own words, for
//! the version that runs.
//!
//! [`configuration`] is everything that a spec comes to before `InstanceStart`. What a version
//! doesn't have is refused by [`gate`] before anything is sent. The types are checked against
//! `src/firecracker/swagger/firecracker.yaml` and `src/vmm/src/vmm_config/` of its source; the
//! payloads for 1.12 to 1.16 are kept in `tests/payloads/`.

mod actions;
mod balloon;
mod boot_source;
mod configuration;
mod drive;
mod entropy;
pub mod gate;
mod instance;
mod machine_config;
mod mmds;
mod network_interface;
mod paths;
mod rate_limiter;
mod serial;
pub mod snapshot;
mod vm;
mod vm_config;
mod vsock;

pub use actions::Action;
pub use balloon::{BalloonBody, BalloonStats, BalloonStatsUpdate, BalloonUpdate};
pub use boot_source::BootSourceBody;
pub use configuration::configuration;
pub use drive::{DriveBody, DriveUpdate};
pub use entropy::EntropyBody;
pub use instance::{INSTANCE, Instance, InstanceState};
pub use machine_config::MachineConfigBody;
pub use mmds::{METADATA, MmdsConfigBody};
pub use network_interface::{NetworkInterfaceBody, NetworkInterfaceUpdate};
pub use paths::Paths;
pub use rate_limiter::{RateLimiterBody, TokenBucketBody};
pub use serial::SerialBody;
pub use vm::{VmBody, VmState};
pub use vm_config::{ConfiguredDrive, VM_CONFIG, VmConfig};
pub use vsock::VsockBody;
