//! `/`: what Firecracker says of itself.

use serde::Deserialize;

/// Where it is asked for.
pub const INSTANCE: &str = "/";

/// What a Firecracker runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Instance {
    /// Whether its guest runs.
    pub state: InstanceState,
}

/// Whether a guest runs, in Firecracker's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum InstanceState {
    /// It was not booted.
    #[serde(rename = "Not started")]
    NotStarted,
    /// It runs.
    Running,
    /// Its processors stand still.
    Paused,
}
