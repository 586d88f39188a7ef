//! Sockets between host and guest.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use typed_builder::TypedBuilder;

/// A vsock device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, TypedBuilder)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct Vsock {
    /// Context identifier of the guest, 3 to 4294967294.
    #[schemars(range(min = 3, max = 4_294_967_294_u32))]
    pub guest_cid: u32,
    /// Unix socket on the host that Firecracker listens on. It must not exist yet; it is
    /// removed at the end. The guest reaches port P of the host by the socket
    /// `<udsPath>_<P>`; of a jailed guest, it must be there before the start.
    #[builder(setter(into))]
    pub uds_path: PathBuf,
}
