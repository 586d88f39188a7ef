//! What a microVM boots.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use typed_builder::TypedBuilder;

/// The kernel, its arguments, and an initial RAM disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, TypedBuilder)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct BootSource {
    /// Kernel image on the host: an uncompressed ELF `vmlinux` on x86_64, a PE `Image` on
    /// aarch64.
    #[builder(setter(into))]
    pub kernel_image_path: PathBuf,
    /// Kernel boot arguments, at most 2048 bytes of printable ASCII. They replace
    /// Firecracker's own default; `root=` and `ro` or `rw` are appended for a root drive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    #[builder(default, setter(into, strip_option))]
    pub boot_args: Option<String>,
    /// Initial RAM disk on the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(into, strip_option))]
    pub initrd_path: Option<PathBuf>,
}
