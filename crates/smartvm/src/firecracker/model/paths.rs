//! Where Firecracker finds a spec's files.

use serde::{Deserialize, Serialize};

/// Where Firecracker finds a spec's files, seen from its working directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Paths {
    /// The kernel image.
    pub kernel: String,
    /// The initramfs, where there is one.
    pub initrd: Option<String>,
    /// The drives' files or sockets, in the spec's order.
    pub drives: Vec<String>,
    /// The vsock device's socket, where there is one.
    pub vsock: Option<String>,
}
