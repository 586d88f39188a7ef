//! The serial console's output.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use typed_builder::TypedBuilder;

use super::TokenBucket;

/// Where the output of the serial console goes, besides the ring that `smartvm logs` and
/// `smartvm console` show. An addition to the interfaces.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, TypedBuilder)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct Serial {
    /// File that gets the output; made if missing, never deleted.
    #[builder(setter(into))]
    pub path: PathBuf,
    /// Limit on the console's output, in bytes; what is above it is dropped, here and in the
    /// ring. Needs Firecracker 1.16. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(strip_option))]
    pub rate_limiter: Option<TokenBucket>,
}
