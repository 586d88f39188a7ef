//! Options of the orchestrator, and of how a microVM is run.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use typed_builder::TypedBuilder;

use super::{Arch, FirewallConfig, WireGuardConfig};

/// Data directory, where none is given.
pub const DEFAULT_DATA_DIR: &str = "/tmp/.smartvm";
/// Runtime directory, where none is given and /dev/shm is usable.
pub const DEFAULT_SHM_RUNTIME_DIR: &str = "/dev/shm/.smartvm/runtime";
/// Number of base image bundles kept, where none is given.
pub const DEFAULT_MAX_STORED_BASE_IMAGES: u32 = 2;

/// Options of the orchestrator.
///
/// ```
/// use smartvm::spec::SmartVmOptions;
///
/// let options = SmartVmOptions::builder()
///     .data_dir("/var/lib/smartvm")
///     .runtime_dir("/run/smartvm")
///     .subnet("10.7.0.0/16")
///     .build();
/// assert!(smartvm::validate::validate_options(&options).is_ok());
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema, TypedBuilder)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct SmartVmOptions {
    /// Directory for binaries, kernels and images. Default: `/tmp/.smartvm`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(into, strip_option))]
    pub data_dir: Option<PathBuf>,
    /// Directory for sockets and the files of running microVMs. Default:
    /// `/dev/shm/.smartvm/runtime` where that is usable, else `<dataDir>/runtime`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(into, strip_option))]
    pub runtime_dir: Option<PathBuf>,
    /// Whether writable drives are copied before boot and the copies deleted at the end.
    /// Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(strip_option))]
    pub ephemeral_writable_drives: Option<bool>,
    /// Version of Firecracker, such as `1.12.1`. Default: the latest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(into, strip_option))]
    pub firecracker_version: Option<String>,
    /// Architecture of the microVMs. Default: `x86_64`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(strip_option))]
    pub arch: Option<Arch>,
    /// The Firecracker binary to use, whatever `firecrackerVersion` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(into, strip_option))]
    pub firecracker_binary_path: Option<PathBuf>,
    /// Bridge for the microVMs, at most 15 bytes. Default: `svbr0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 15))]
    #[builder(default, setter(into, strip_option))]
    pub bridge_name: Option<String>,
    /// IPv4 subnet of the microVMs in CIDR notation, with a prefix of 1 to 30. Default:
    /// `172.30.0.0/24`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(into, strip_option))]
    pub subnet: Option<String>,
    /// What guests may reach. Default: everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(into, strip_option))]
    pub firewall: Option<FirewallConfig>,
    /// Whether guests may reach one another. Default: false. An addition to the interfaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(strip_option))]
    pub guests_may_talk: Option<bool>,
    /// Services of the host that guests may reach at the gateway's address: `tcp/8080`,
    /// `udp/53`, or a name (dns, http, https, ntp, ssh). Default: none. An addition to the
    /// interfaces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[builder(default, setter(into))]
    pub host_services: Vec<String>,
    /// Tunnel for the guests' traffic. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(into, strip_option))]
    pub wireguard: Option<WireGuardConfig>,
    /// Directory for base images. Default: `<dataDir>/base-images`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(into, strip_option))]
    pub base_image_cache_dir: Option<PathBuf>,
    /// Largest number of base image bundles kept, at least 1. Default: 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    #[builder(default, setter(strip_option))]
    pub max_stored_base_images: Option<u32>,
    /// URL of a hosted base image manifest. Excludes `baseImageManifestPath`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(into, strip_option))]
    pub base_image_manifest_url: Option<String>,
    /// Path of a base image manifest, for development and tests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(into, strip_option))]
    pub base_image_manifest_path: Option<PathBuf>,
}

impl SmartVmOptions {
    /// The data directory, with the default applied.
    pub fn data_dir(&self) -> &Path {
        self.data_dir
            .as_deref()
            .unwrap_or(Path::new(DEFAULT_DATA_DIR))
    }

    /// The runtime directory, with the default applied, which depends on whether the host has
    /// a usable /dev/shm.
    pub fn runtime_dir(&self, shm_usable: bool) -> PathBuf {
        match &self.runtime_dir {
            Some(dir) => dir.clone(),
            None if shm_usable => DEFAULT_SHM_RUNTIME_DIR.into(),
            None => self.data_dir().join("runtime"),
        }
    }

    /// The directory for base images, with the default applied.
    pub fn base_image_cache_dir(&self) -> PathBuf {
        match &self.base_image_cache_dir {
            Some(dir) => dir.clone(),
            None => self.data_dir().join("base-images"),
        }
    }

    /// The architecture, with the default applied.
    pub fn arch(&self) -> Arch {
        self.arch.unwrap_or_default()
    }

    /// The number of base image bundles kept, with the default applied.
    pub fn max_stored_base_images(&self) -> u32 {
        self.max_stored_base_images
            .unwrap_or(DEFAULT_MAX_STORED_BASE_IMAGES)
    }

    /// What these options say about running one microVM.
    pub fn runtime_options(&self) -> RuntimeOptions {
        RuntimeOptions {
            runtime_dir: self.runtime_dir.clone(),
            ephemeral_writable_drives: self.ephemeral_writable_drives,
        }
    }
}

/// How one microVM is run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema, TypedBuilder)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct RuntimeOptions {
    /// Directory for the microVM's sockets and files. Default: as in [`SmartVmOptions`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(into, strip_option))]
    pub runtime_dir: Option<PathBuf>,
    /// Whether writable drives are copied before boot and the copies deleted at the end.
    /// Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(strip_option))]
    pub ephemeral_writable_drives: Option<bool>,
}

impl RuntimeOptions {
    /// Whether writable drives are copied, with the default applied.
    pub fn ephemeral_writable_drives(&self) -> bool {
        self.ephemeral_writable_drives.unwrap_or(true)
    }
}
