//! One microVM.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use typed_builder::TypedBuilder;

use super::{
    Balloon, BootSource, Drive, Entropy, FirewallConfig, Jail, Logger, MachineConfig, Metrics,
    Mmds, NetworkInterface, Serial, Vsock,
};

/// A microVM: what it boots, its hardware, its devices, and what becomes of it.
///
/// Built, or read from JSON, TOML or YAML:
///
/// ```
/// use smartvm::spec::{BootSource, Drive, Format, MachineConfig, MicroVmSpec, RateLimiter, TokenBucket};
///
/// let disk = Drive::builder()
///     .drive_id("root")
///     .path_on_host("root.ext4")
///     .is_root_device(true)
///     .rate_limiter(
///         RateLimiter::builder()
///             .bandwidth(TokenBucket::builder().size(10 << 20).refill_time(1000).build())
///             .build(),
///     );
/// let spec = MicroVmSpec::builder()
///     .id("web")
///     .boot_source(BootSource::builder().kernel_image_path("vmlinux").build())
///     .machine_config(MachineConfig::builder().vcpu_count(2).mem_size_mib(256).build())
///     .drives(vec![disk.build()])
///     .build();
///
/// let text = r#"{
///     "id": "web",
///     "bootSource": { "kernelImagePath": "vmlinux" },
///     "machineConfig": { "vcpuCount": 2, "memSizeMib": 256 },
///     "drives": [{
///         "driveId": "root", "pathOnHost": "root.ext4", "isRootDevice": true,
///         "rateLimiter": { "bandwidth": { "size": 10485760, "refillTime": 1000 } }
///     }]
/// }"#;
/// assert_eq!(smartvm::spec::load::<MicroVmSpec>(text, Format::Json)?, spec);
/// # Ok::<(), smartvm::spec::Problems>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, TypedBuilder)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct MicroVmSpec {
    /// Name of the microVM on this host: letters, digits and `-`, 1 to 64. Default: a random
    /// one is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    #[builder(default, setter(into, strip_option))]
    pub id: Option<String>,
    /// What it boots.
    #[builder(setter(into))]
    pub boot_source: BootSource,
    /// Its processors and memory.
    #[builder(setter(into))]
    pub machine_config: MachineConfig,
    /// Its block devices, in the order in which the guest sees them (after the root device).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[builder(default, setter(into))]
    pub drives: Vec<Drive>,
    /// Its network interfaces, in the order in which the guest sees them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[builder(default, setter(into))]
    pub network_interfaces: Vec<NetworkInterface>,
    /// Sockets between host and guest. Default: a device of smartvm's own, for its agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(into, strip_option))]
    pub vsock: Option<Vsock>,
    /// The memory balloon. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(into, strip_option))]
    pub balloon: Option<Balloon>,
    /// The metadata service. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(into, strip_option))]
    pub mmds: Option<Mmds>,
    /// Firecracker's log. Default: a file in the microVM's own directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(into, strip_option))]
    pub logger: Option<Logger>,
    /// Firecracker's metrics. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(into, strip_option))]
    pub metrics: Option<Metrics>,

    /// Labels to find it by: at most 64, keys of 1 to 63 bytes (letters, digits, `-`, `_`,
    /// `.`, `/`), values of at most 255 bytes without control characters. An addition to the
    /// interfaces.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[builder(default, setter(into))]
    pub labels: BTreeMap<String, String>,
    /// Who it lives with. Default: `owner`. An addition to the interfaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(strip_option))]
    pub lifetime: Option<Lifetime>,
    /// Time in seconds after which it is ended, at least 1. Default: no limit. An addition to
    /// the interfaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    #[builder(default, setter(strip_option))]
    pub max_runtime_s: Option<u64>,
    /// Directory for copies of drives, on a file system of the caller's choice (one with
    /// reflinks makes them instant). Default: the microVM's own directory. An addition to the
    /// interfaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(into, strip_option))]
    pub staging_dir: Option<PathBuf>,
    /// Firewall of this microVM alone, before that of the subnet: what it denies is denied,
    /// what it allows is still subject to the subnet's rules. Default: none. An addition to the
    /// interfaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(into, strip_option))]
    pub firewall: Option<FirewallConfig>,
    /// How Firecracker is confined. An addition to the interfaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(into, strip_option))]
    pub jail: Option<Jail>,
    /// A source of random numbers. Default: none. An addition to the interfaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(into, strip_option))]
    pub entropy: Option<Entropy>,
    /// Where the serial console's output goes as well. An addition to the interfaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(into, strip_option))]
    pub serial: Option<Serial>,
    /// What the metadata service holds from the start: a JSON object of at most 51,200 bytes.
    /// Needs `mmds`. An addition to the interfaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(into, strip_option))]
    pub metadata: Option<serde_json::Value>,
}

/// Who a microVM lives with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum Lifetime {
    /// It ends when the process that made it ends, however that ends.
    #[default]
    Owner,
    /// It lives on, and any process may take it over.
    Detached,
}
