//! The memory balloon.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use typed_builder::TypedBuilder;

/// A balloon, which takes memory away from the guest and gives it back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, TypedBuilder)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct Balloon {
    /// Size the balloon grows to, in MiB; less than the microVM's memory.
    pub amount_mib: u64,
    /// Whether the guest gets memory back before it kills processes for lack of it.
    pub deflate_on_oom: bool,
    /// Seconds between two statistics of the guest; 0 is none, and can't be changed later
    /// from or to 0. At most 65535. Default: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 65535))]
    #[builder(default, setter(strip_option))]
    pub stats_polling_interval_s: Option<u64>,
    /// Whether the guest can be asked which of its pages are free. Needs Firecracker 1.14.
    /// Default: false. An addition to the interfaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(strip_option))]
    pub free_page_hinting: Option<bool>,
    /// Whether the guest gives free pages back to the host by itself. Needs Firecracker 1.14,
    /// which calls it a preview. Default: false. An addition to the interfaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(strip_option))]
    pub free_page_reporting: Option<bool>,
}
