//! `/drives/{id}`: PUT before boot, PATCH after it.

use serde::Serialize;

use super::RateLimiterBody;
use crate::error::Result;
use crate::firecracker::client::{Method, Request};
use crate::spec::{CacheType, Drive, IoEngine};

/// A block device.
#[derive(Debug, Serialize)]
pub struct DriveBody<'a> {
    drive_id: &'a str,
    is_root_device: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_on_host: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    socket: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    is_read_only: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    partuuid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_type: Option<CacheType>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate_limiter: Option<RateLimiterBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    io_engine: Option<IoEngine>,
}

impl<'a> DriveBody<'a> {
    /// The drive, whose file or socket Firecracker finds at `path`.
    pub(super) fn new(drive: &'a Drive, path: &'a str) -> Self {
        let vhost_user = drive.socket.is_some();
        Self {
            drive_id: &drive.drive_id,
            is_root_device: drive.is_root_device,
            path_on_host: (!vhost_user).then_some(path),
            socket: vhost_user.then_some(path),
            // A vhost-user device takes none of the file's settings; elsewhere Firecracker
            // requires this one.
            is_read_only: (!vhost_user).then_some(drive.read_only()),
            partuuid: drive.part_uuid.as_deref(),
            cache_type: drive.cache_type,
            rate_limiter: drive.rate_limiter.as_ref().map(Into::into),
            io_engine: drive.io_engine,
        }
    }

    pub(super) fn request(&self) -> Result<Request> {
        Request::new(Method::Put, format!("/drives/{}", self.drive_id), self)
    }
}

/// A change of a block device while its guest runs. The same path again tells the guest of a
/// new size; neither path nor limits have a vhost-user device ask its backend for the size.
#[derive(Debug, Serialize)]
pub struct DriveUpdate<'a> {
    /// The drive.
    pub drive_id: &'a str,
    /// Its file, seen from Firecracker's working directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_on_host: Option<&'a str>,
    /// Its limits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limiter: Option<RateLimiterBody>,
}

impl DriveUpdate<'_> {
    /// The request.
    pub fn request(&self) -> Result<Request> {
        Request::new(Method::Patch, format!("/drives/{}", self.drive_id), self)
    }
}
