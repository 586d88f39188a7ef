//! `/vm/config`: what Firecracker has of its devices.

use serde::Deserialize;

/// Where it is asked for.
pub const VM_CONFIG: &str = "/vm/config";

/// A VM as its Firecracker has it: of all that it tells, what may change while it runs.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct VmConfig {
    /// The drives.
    #[serde(default)]
    pub drives: Vec<ConfiguredDrive>,
}

/// One drive of these.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ConfiguredDrive {
    /// Its id.
    pub drive_id: String,
    /// Its file, as Firecracker sees it; a vhost-user drive has none.
    pub path_on_host: Option<String>,
}
