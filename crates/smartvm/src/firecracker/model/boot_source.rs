//! `/boot-source`: before boot only.

use serde::Serialize;

use super::Paths;
use crate::error::Result;
use crate::firecracker::client::{Method, Request};
use crate::spec::BootSource;

/// What is booted.
#[derive(Debug, Serialize)]
pub struct BootSourceBody<'a> {
    kernel_image_path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    boot_args: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    initrd_path: Option<&'a str>,
}

impl<'a> BootSourceBody<'a> {
    pub(super) fn new(boot: &'a BootSource, paths: &'a Paths) -> Self {
        Self {
            kernel_image_path: &paths.kernel,
            boot_args: boot.boot_args.as_deref(),
            initrd_path: paths.initrd.as_deref(),
        }
    }

    pub(super) fn request(&self) -> Result<Request> {
        Request::new(Method::Put, "/boot-source", self)
    }
}
