//! Firecracker's log.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use typed_builder::TypedBuilder;

/// Where Firecracker logs, and how much.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, TypedBuilder)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct Logger {
    /// Log file (or FIFO); made if missing, never deleted.
    #[builder(setter(into))]
    pub log_path: PathBuf,
    /// Least important messages to log. Default: `Info`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(strip_option))]
    pub level: Option<LogLevel>,
    /// Whether lines show their level. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(strip_option))]
    pub show_level: Option<bool>,
    /// Whether lines show the source file and line they come from. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(strip_option))]
    pub show_log_origin: Option<bool>,
}

/// Firecracker's own log levels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub enum LogLevel {
    /// Nothing.
    Off,
    /// Everything.
    Trace,
    /// What helps to find an error.
    Debug,
    /// What happens.
    #[default]
    Info,
    /// What may be a problem.
    Warning,
    /// What failed.
    Error,
}
