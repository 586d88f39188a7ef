//! `/mmds/config`, before boot, and `/mmds`, at any time.

use serde::Serialize;

use crate::error::Result;
use crate::firecracker::client::{Method, Request};
use crate::spec::{Mmds, MmdsVersion};

/// The path of the data.
pub const METADATA: &str = "/mmds";

/// The metadata service.
#[derive(Debug, Serialize)]
pub struct MmdsConfigBody<'a> {
    // Always sent: Firecracker's own default is V1, which it deprecates.
    version: MmdsVersion,
    network_interfaces: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    ipv4_address: Option<&'a str>,
    // Since 1.13.
    #[serde(skip_serializing_if = "Option::is_none")]
    imds_compat: Option<bool>,
}

impl<'a> From<&'a Mmds> for MmdsConfigBody<'a> {
    fn from(mmds: &'a Mmds) -> Self {
        Self {
            version: mmds.version.unwrap_or_default(),
            network_interfaces: &mmds.network_interfaces,
            ipv4_address: mmds.ipv4_address.as_deref(),
            imds_compat: mmds.imds_compat,
        }
    }
}

impl MmdsConfigBody<'_> {
    pub(super) fn request(&self) -> Result<Request> {
        Request::new(Method::Put, "/mmds/config", self)
    }
}
