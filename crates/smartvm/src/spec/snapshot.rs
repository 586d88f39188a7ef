//! Parameters of making and loading a snapshot.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use typed_builder::TypedBuilder;

/// Where a snapshot goes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, TypedBuilder)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct SnapshotCreateParams {
    /// File for the state of the virtual machine; some 16 KB.
    #[builder(setter(into))]
    pub snapshot_path: PathBuf,
    /// File for the guest's memory, as large as that (a diff is sparse).
    #[builder(setter(into))]
    pub mem_file_path: PathBuf,
    /// The whole memory, or what changed. Default: `Full`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(strip_option))]
    pub snapshot_type: Option<SnapshotType>,
}

/// How much of the memory a snapshot holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub enum SnapshotType {
    /// All of it.
    #[default]
    Full,
    /// The pages written since the last snapshot; needs `trackDirtyPages`.
    Diff,
}

/// Which snapshot to load, and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, TypedBuilder)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct SnapshotLoadParams {
    /// File with the state of the virtual machine.
    #[builder(setter(into))]
    pub snapshot_path: PathBuf,
    /// File with the guest's memory; it must stay unchanged while the microVM lives.
    #[builder(setter(into))]
    pub mem_file_path: PathBuf,
    /// Whether to track written pages from now on, for diff snapshots. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(strip_option))]
    pub enable_diff_snapshots: Option<bool>,
    /// Whether the guest runs on at once; otherwise it is paused. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(strip_option))]
    pub resume_vm: Option<bool>,
}
