//! Firecracker's metrics.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use typed_builder::TypedBuilder;

/// Where Firecracker writes its metrics.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, TypedBuilder)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct Metrics {
    /// File or FIFO that gets one JSON object a line: at the start, every 60 seconds, and when
    /// asked. Made if missing, never deleted.
    #[builder(setter(into))]
    pub metrics_path: PathBuf,
}
